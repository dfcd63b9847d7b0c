"""The node as its application sees it, on asyncio."""

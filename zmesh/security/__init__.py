"""Keys, proofs, trust and signatures."""

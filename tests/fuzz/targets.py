"""The targets by name: pure functions of bytes, which raise where zmesh has a defect."""

from collections.abc import Callable
from typing import Final

from tests.fuzz import (
    codec_target,
    compression_target,
    engine_target,
    files_target,
    joining_target,
    journal_target,
    keys_target,
    link_target,
    records_target,
    signatures_target,
    tables_target,
)

Target = Callable[[bytes], None]

TARGETS: Final[dict[str, Target]] = {
    "codec": codec_target.run,
    "compression": compression_target.run,
    "records": records_target.run,
    "journal": journal_target.run,
    "files": files_target.run,
    "tables": tables_target.run,
    "keys": keys_target.run,
    "joining": joining_target.run,
    "signatures": signatures_target.run,
    "link": link_target.run,
    "engine": engine_target.run,
}

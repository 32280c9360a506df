"""``massaccess receive``: a SigMF recording through the receiver block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..errors import MassaccessError
from ..link.recording import open_recording
from ._json import write_json
from ._live import counters, explain, final_table, finish, labelled, payload_facts, streaming_facts, watch
from .run import blocks, document, headline, streaming_options


@click.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=None, help="Seed of receivers that draw; that of the recording unless given.")
@click.option("--no-hash", is_flag=True, help="Do not check the hash of the samples before decoding.")
@click.option("--salvage", is_flag=True, help="Decode the whole frames of a damaged recording.")
@streaming_options
def command(capture: Path, seed: int | None, no_hash: bool, salvage: bool, json_path: Path | None, traceback: bool, **options: Any) -> None:
    """Decode a SigMF recording, as `massaccess run --record` makes it.

    With the same receiver, --weights, --gains, --max-batch and --threads, the digest is that of the run that was recorded. Exit codes are
    those of `run`.
    """
    recording = open_recording(capture, check_hash=not no_hash, salvage=salvage)
    radio = blocks()
    seed = seed if seed is not None else recording.seed or 0
    tb = radio.capture(capture, seed=seed, check_hash=False, salvage=salvage, **options)
    name = tb.receiver.stats()["receiver"]
    try:
        outcome = watch(radio.run, tb, f"{name}, {capture.name}", lambda seconds: counters(tb.receiver.stats(), len(recording), seconds))
    except MassaccessError as error:
        raise explain(error, traceback) from error
    facts = streaming_facts(tb.receiver.stats(), outcome, tb.receiver.digest(), len(recording)) | payload_facts(tb, outcome)
    if json_path is None or str(json_path) != "-":
        Console().print(final_table(headline(recording.config), labelled(facts), {}))
    if json_path is not None:
        write_json(json_path, document(recording.config, seed, facts, {}))
    finish(outcome)

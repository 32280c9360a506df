"""What a training leaves behind: the header of its weights file, and the dictionary that it answers with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..forward.pilots import book_id, book_of
from ..weights import Header
from .recipe import Recipe

if TYPE_CHECKING:
    from .loop import Training


def header_of(recipe: Recipe, metrics: dict[str, Any]) -> Header:
    """The header of weights that ``recipe`` made."""
    rows = recipe.kind == "channel"
    if recipe.kind == "noncoherent":
        return _of_a_cell(recipe, metrics)
    if recipe.kind == "activity":
        metrics = {**metrics, "channels": [Path(one.channel).name for one in recipe.data.sources]}
    return Header(
        recipe.network,
        recipe.network_config,
        recipe.kind,
        recipe.rows if rows else 0,
        recipe.columns if rows else 0,
        Path(recipe.data.sources[0].channel).name,
        recipe.name,
        recipe.seed,
        metrics,
        pilots=recipe.frames.knows if recipe.kind == "activity" else {},
    )


def _of_a_cell(recipe: Recipe, metrics: dict[str, Any]) -> Header:
    cell = recipe.cell.config
    channel = Path(cell.channel).name
    columns, length = cell.users * cell.sequences, cell.pilot_len
    book = {"book": "fixed", "kind": cell.pilot_kind, "seed": cell.pilot_seed, "users": columns, "energy": cell.pilot_energy}
    return Header(
        recipe.network,
        recipe.network_config,
        recipe.kind,
        channel=channel,
        recipe=recipe.name,
        seed=recipe.seed,
        metrics={**metrics, "system": cell.to_dict()},
        pilots={**book, "id": book_id(book_of(cell)), "shortest": length, "longest": length},
    )


def result_of(
    training: Training, curves: tuple[Path, Path], metrics: dict[str, Any], *, finished: bool, steps: int, seconds: float
) -> dict[str, Any]:
    """Recipe, device, whether it came to its end, steps, seconds, metrics and files, ready for JSON."""
    files = {
        "weights": str(training.out),
        "checkpoint": str(training.checkpoint_path),
        "curves": str(curves[0]),
        "picture": str(curves[1]),
    }
    return {"recipe": training.recipe.to_dict(), "device": str(training.device), "finished": finished, "steps": steps} | {
        "seconds": round(seconds, 3),
        "metrics": metrics,
        "files": files,
    }

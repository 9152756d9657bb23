"""`--dry_run`: what would be made, and what is there already, without sampling or writing anything."""

from __future__ import annotations

from collections import Counter

from erase.generation.header import check_same, default_look, make_header, read_header
from erase.generation.plan import Look, make_asks, make_batches
from erase.generation.records import HEADER, MANIFEST, part_files, read_written
from erase.generation.run import join_processes
from erase.generation.settings import Generation, check_generation


def dry_run(generation: Generation) -> str:
    """A report; a folder that the run could not go on with is an error."""
    rows, model = check_generation(generation)
    asks = make_asks(rows, generation.images_per_prompt, default_look(generation, model))
    device = join_processes().device.type
    header = make_header(generation, rows, model, device, 1)
    folder = generation.output_dir
    going_on = (folder / HEADER).exists() and not generation.overwrite
    if going_on:
        check_same(folder, read_header(folder / HEADER), header)
    files = [folder / MANIFEST, *part_files(folder)] if going_on else []
    there = {note.file for file in files for note in read_written(file)} & {ask.file for ask in asks}
    looks = Counter(ask.look for ask in asks)
    batches = sum(1 for _ in make_batches(asks, generation.batch_size))
    distinct = len({row.prompt for row in rows})
    return "\n".join(
        [
            f"model: {generation.model}, hash {header['model']['hash'][:12]}, {header['sampling']['scheduler']}, "
            f"{generation.dtype} on {device}" + (f", with the LoRA {generation.lora}" if generation.lora else ""),
            f"prompts: {generation.prompts}: {len(rows):,} rows, {distinct:,} distinct, such as {rows[0].prompt!r}",
            f"images: {len(asks):,}, {generation.images_per_prompt} of each row, in {batches:,} batches",
            *(f"  {count:,}: {describe(look)}" for look, count in looks.most_common(5)),
            *([f"  ... and {len(looks) - 5} more ways of sampling"] if len(looks) > 5 else []),
            f"folder: {folder}" + (f": {len(there):,} of {len(asks):,} images are there" if going_on else ": new"),
        ]
    )


def describe(look: Look) -> str:
    """One way of sampling in words."""
    return f"{look.width} x {look.height} pixels, {look.steps} steps, guidance {look.guidance_scale:g}"

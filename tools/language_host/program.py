"""Runs one Pulumi program: `program.py SETTINGS-AS-JSON PROGRAM [ARGUMENTS]`, in the program's own interpreter."""

import asyncio
import json
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pulumi
import pulumi.runtime

SHOWN_ALREADY = 32


def main(settings_text: str, program: str, arguments: list[str]) -> NoReturn:
    """Run the program and end with 0, or with `SHOWN_ALREADY` once its error is shown."""
    settings = pulumi.runtime.Settings(**json.loads(settings_text))
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    pulumi.runtime.configure(settings)
    # A failed graph leaves futures that nobody awaits; asyncio's own reports of them would hide the error.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    threads = ThreadPoolExecutor(max_workers=max(settings.parallel or 1, 1) * 4)
    loop.set_default_executor(threads)
    sys.argv = [program, *arguments]
    status = SHOWN_ALREADY
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: run(program)))
        status = 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
    except Exception:
        pulumi.log.error(f"Program failed with an unhandled exception:\n{own_frames(program)}")
    sys.stdout.flush()
    sys.stderr.flush()
    threads.shutdown(wait=status == 0, cancel_futures=True)
    os._exit(status)  # what is left are threads of a failed graph


def run(program: str) -> None:
    """The program, as `python PROGRAM` would run it."""
    runpy.run_path(program, run_name="__main__")


def own_frames(program: str) -> str:
    """The traceback of the current exception, from the program's first own frame on."""
    own = Path(program).resolve()
    own = own / "__main__.py" if own.is_dir() else own
    frames = traceback.extract_tb(sys.exc_info()[2])
    for index, frame in enumerate(frames):
        if Path(frame.filename).resolve() == own:
            return traceback.format_exc(limit=index - len(frames))
    return traceback.format_exc()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

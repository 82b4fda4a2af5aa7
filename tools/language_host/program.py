"""Runs one Pulumi program: `program.py SETTINGS-AS-JSON PROGRAM [ARGUMENTS]`, in the program's own interpreter."""

import asyncio
import json
import logging
import os
import runpy
import signal
import sys
import sysconfig
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pulumi
import pulumi.runtime

SHOWN_ALREADY = 32
MONITOR_ENDED = "resource monitor shut down"
"""What every open call ends with once the engine has stopped the program for an error that it has shown."""
NOT_OF_THE_PROGRAM = tuple(Path(each).resolve() for each in (__file__, *map(sysconfig.get_path, ("stdlib", "purelib"))))


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
    except Exception as error:
        if str(error) != MONITOR_ENDED:
            pulumi.log.error(said(error, program))
    sys.stdout.flush()
    sys.stderr.flush()
    threads.shutdown(wait=status == 0, cancel_futures=True)
    os._exit(status)  # what is left are threads of a failed graph


def run(program: str) -> None:
    """The program, as `python PROGRAM` would run it."""
    runpy.run_path(program, run_name="__main__")


def said(error: Exception, program: str) -> str:
    """The error with its traceback from the program's first own frame on; without, where none is the program's.

    What a provider refuses comes out of the SDK's own tasks, whose frames say nothing to a user.
    """
    main = Path(program).resolve()
    main = main / "__main__.py" if main.is_dir() else main
    files = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in files if not any(file.is_relative_to(each) for each in NOT_OF_THE_PROGRAM)]
    if not own:
        return (
            f"Program failed: {error}"
            if type(error) is Exception
            else f"Program failed: {type(error).__name__}: {error}"
        )
    first = files.index(main if main in files else own[0])
    return f"Program failed with an unhandled exception:\n{traceback.format_exc(limit=first - len(files))}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

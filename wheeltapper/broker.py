"""
The embedded broker: MQTT on loopback for one machine, with nothing on disk.

It is what ``wheeltapper up`` starts when no other broker is named. It asks nobody who they are, so it listens on 127.0.0.1
and nowhere else; a plant's broker is mosquitto with client certificates (see docs/containers.md).
"""

import argparse
import os
import sys


def main() -> int:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        prog="python -m wheeltapper.broker", description="The embedded broker on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    from iotcore.iotcore import IotCoreBroker

    broker = IotCoreBroker(listen="127.0.0.1", port=port, max_payload_size=256 * 1024, max_inflight_count=1_000)
    try:
        broker.check_ports()
    except OSError as error:
        print(f"wheeltapper: broker port {port}: {error}", file=sys.stderr)
        return 1
    # The broker writes a line for every packet on standard error and cannot be told not to.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    broker.run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())

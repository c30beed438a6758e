"""Run on a card: one run of songs with streamed blocks under each cap, as a list of results in JSON.

The arguments are the songs, their seconds, and the caps in bytes.
"""

import sys
from contextlib import closing

import msgspec

from acestep.knobs import Knobs, Offload, Variant
from calibrate.probes.cuda import CudaProber
from calibrate.workload import Workload

KNOBS = Knobs(variant=Variant.BASE, offload=Offload.STREAM_ENCODERS)


def main() -> None:
    songs, seconds, *caps = map(int, sys.argv[1:])
    song = Workload(batch=songs, duration_s=float(seconds))
    with closing(CudaProber()) as prober:
        sys.stdout.write(msgspec.json.encode([prober.probe(KNOBS, song, cap) for cap in caps]).decode())


if __name__ == "__main__":
    main()

"""The main module of a worker process of `convert`."""

from lit_mbldm.data.prepare.convert import answer
from lit_mbldm.parallel.worker_process import serve

if __name__ == "__main__":
    serve(answer)

"""The main module of a worker process of `convert`."""

from lit_mbldm.data.convert import answer
from lit_mbldm.data.worker_process import serve

if __name__ == "__main__":
    serve(answer)

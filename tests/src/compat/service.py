"""Stands in for kafka-python's test/service.py, which its source distribution leaves out: brokers run already."""


class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    def close(self):
        pass


class SpawnedService:
    pass

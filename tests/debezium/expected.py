#!/usr/bin/env python3
"""Writes down what the real Debezium makes of the matrix: one file of JSON lines for each mode of modes.json.

  expected.py [--jars DIR] [--out DIR] [--mode NAME]…

Starts PostgreSQL, a Kafka broker and Connect standalone with Debezium, all on loopback and in a temporary directory, and
stops them again. See README.md for what it needs and what the files hold.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

HERE = Path(__file__).resolve().parent
# Differ from run to run; a test checks their shape only.
VARYING = {"ts_ms", "ts_us", "ts_ns", "lsn", "txId", "version", "sequence"}


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, text=True, capture_output=True, **more).stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, seconds, holds):
    end = time.time() + seconds
    while not (found := holds()):
        if time.time() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.2)
    return found


class Postgres:
    """A server of its own. PostgreSQL refuses to run as root; then it runs as the user `postgres`."""

    def __init__(self, directory):
        self.dir, self.port = directory / "postgres", free_port()
        self.bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
        self.dir.mkdir()
        if os.getuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        self.program("initdb", "-D", self.dir / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        options = f"-p {self.port} -h 127.0.0.1 -k {self.dir} -c wal_level=logical -c max_replication_slots=64 -c max_wal_senders=64 -c max_connections=400"
        subprocess.run(self.as_user("pg_ctl", "-D", self.dir / "data", "-w", "-l", self.dir / "log", "-o", options, "start"),
                       check=True, stdout=subprocess.DEVNULL, cwd=self.dir)

    def as_user(self, program, *arguments):
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"] if os.getuid() == 0 else []
        return [*user, str(self.bin / program), *map(str, arguments)]

    def program(self, program, *arguments):
        return run(*self.as_user(program, *arguments), cwd=self.dir)

    def psql(self, *arguments):
        return run(self.bin / "psql", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1", *arguments)

    def stop(self):
        self.program("pg_ctl", "-D", self.dir / "data", "-m", "immediate", "stop")


class Java:
    """A Java program in the background."""

    def __init__(self, jars, directory, heap, *arguments):
        self.log = directory / "log"
        (directory / "log4j2.properties").write_text(
            "rootLogger.level=INFO\nrootLogger.appenderRefs=c\nrootLogger.appenderRef.c.ref=C\nappender.c.type=Console\n"
            "appender.c.name=C\nappender.c.layout.type=PatternLayout\nappender.c.layout.pattern=%d %p %c{1} %m%n\n")
        self.process = subprocess.Popen(
            ["java", heap, f"-Dlog4j2.configurationFile={directory}/log4j2.properties", "-cp", f"{jars}/*", *map(str, arguments)],
            stdout=open(self.log, "w"), stderr=subprocess.STDOUT)

    def alive(self):
        if self.process.poll() is not None:
            raise SystemExit(f"it ended: {self.log.read_text()[-3000:]}")
        return True

    def stop(self):
        self.process.kill()
        self.process.wait()


def broker(jars, directory):
    port, controller = free_port(), free_port()
    directory.mkdir()
    config = directory / "server.properties"
    config.write_text("\n".join([
        "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{controller}",
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}", f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names=CONTROLLER", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        f"log.dirs={directory}/data", "offsets.topic.replication.factor=1", "group.initial.rebalance.delay.ms=0"]))
    run("java", "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", config)
    java = Java(jars, directory, "-Xmx512m", "kafka.Kafka", config)
    until("the broker", 60, lambda: java.alive() and "Kafka Server started" in java.log.read_text())
    return java, f"127.0.0.1:{port}"


def connector(name, mode, tables, postgres):
    config = {
        "name": name, "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1", "plugin.name": "pgoutput",
        "database.hostname": "127.0.0.1", "database.port": str(postgres.port), "database.user": "postgres", "database.password": "x",
        "database.dbname": "postgres", "topic.prefix": name, "slot.name": name.replace("-", "_"), "publication.name": name,
        "table.include.list": ",".join(pattern(table) for table in tables), "publication.autocreate.mode": "disabled", "heartbeat.interval.ms": "0",
    }
    return config | {key: value for key, value in mode.items() if key != "tables"}


def pattern(table):
    return "m\\\\." + "".join(c if c.isalnum() or c == "_" else "\\\\" + c for c in table)


def publication(name, mode, tables):
    root = mode.get("publish.via.partition.root", "false")
    listed = ", ".join('m."{}"'.format(table.replace('"', '""')) for table in tables)
    return f'CREATE PUBLICATION "{name}" FOR TABLE {listed} WITH (publish_via_partition_root = {root})'


def tables_of(mode, everything):
    return [table for table in everything if table == "done" or any(fnmatch.fnmatchcase(table, glob) for glob in mode["tables"])
            and not (mode["tables"] == ["*"] and table == "parted")]


def read_all(bootstrap, prefix):
    """Every record of the topics of one connector."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    topics = [topic for topic in consumer.list_topics(timeout=10).topics if topic.startswith(prefix + ".")]
    records = []
    for topic in sorted(topics):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        consumer.assign([TopicPartition(topic, 0, low)])
        while high > low:
            message = consumer.poll(10)
            if message is None or message.error():
                raise SystemExit(f"{topic}: {message and message.error()}")
            records.append(message)
            low = message.offset() + 1
    consumer.close()
    return records


def masked(value):
    if isinstance(value, dict):
        return {key: "*" if key in VARYING and found is not None and not isinstance(found, dict) else masked(found) for key, found in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def mask_event(payload):
    """Only the envelope's own fields vary; a row may have a column of the same name."""
    if not isinstance(payload, dict) or "source" not in payload:
        return payload
    head = {key: found for key, found in payload.items() if key not in ("before", "after")}
    return {key: payload[key] if key in ("before", "after") else masked(head)[key] for key in payload}


def short(value):
    """Long text becomes its length and digest, so that the files stay small."""
    if isinstance(value, dict):
        return {key: short(found) for key, found in value.items()}
    if isinstance(value, list):
        return [short(item) for item in value]
    if isinstance(value, str) and len(value.encode()) > 256:
        return f"{len(value.encode())} bytes, md5 {hashlib.md5(value.encode()).hexdigest()}"
    return value


class Written:
    """The lines of a file: a schema when it first appears, then the records that name it by number."""

    def __init__(self):
        self.schemas, self.lines = {}, []

    def schema(self, schema):
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
        if text not in self.schemas:
            self.schemas[text] = len(self.schemas)
            self.lines.append('{"schema":' + text + "}")
        return self.schemas[text]

    def part(self, raw, mask):
        if raw is None:
            return None
        found = json.loads(raw)
        return [None if found["schema"] is None else self.schema(found["schema"]), short(mask(found["payload"]))]

    def record(self, message):
        line = {"topic": message.topic(), "key": self.part(message.key(), lambda key: key), "value": self.part(message.value(), mask_event)}
        headers = {name: self.part(value, lambda v: v) for name, value in message.headers() or [] if not name.startswith("__debezium.context")}
        if headers:
            line["headers"] = headers
        self.lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jars", type=Path, help="a directory with the jars of pom.xml; fetched with Maven when it is not given")
    arguments.add_argument("--out", type=Path, default=HERE / "expected")
    arguments.add_argument("--mode", action="append")
    arguments.add_argument("--keep", action="store_true", help="keep the temporary directory with the logs")
    given = arguments.parse_args()
    modes = {name: mode for name, mode in json.loads((HERE / "modes.json").read_text()).items() if not given.mode or name in given.mode}
    directory = Path(tempfile.mkdtemp(prefix="aqueduct-debezium-"))
    directory.chmod(0o755)
    jars = given.jars
    if jars is None:
        jars = directory / "jars"
        run("mvn", "-q", "-B", "-f", HERE / "pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={jars}", "-DincludeScope=runtime")
    started = []
    try:
        postgres = Postgres(directory)
        started.append(postgres)
        for file in ("schema.sql", "rows.sql"):
            postgres.psql("-f", HERE / "matrix" / file)
        everything = postgres.psql("-c", "SELECT relname FROM pg_class WHERE relnamespace = 'm'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1").splitlines()
        java, bootstrap = broker(jars, directory / "kafka")
        started.append(java)
        connect = directory / "connect"
        connect.mkdir()
        (connect / "worker.properties").write_text("\n".join([
            f"bootstrap.servers={bootstrap}", f"listeners=http://127.0.0.1:{free_port()}", f"offset.storage.file.filename={connect}/offsets",
            "key.converter=org.apache.kafka.connect.json.JsonConverter", "value.converter=org.apache.kafka.connect.json.JsonConverter",
            "header.converter=org.apache.kafka.connect.json.JsonConverter", "header.converter.schemas.enable=true", "offset.flush.interval.ms=1000",
            f"plugin.path={connect}/none", "plugin.discovery=only_scan"]))
        files = []
        for name, mode in modes.items():
            tables = tables_of(mode, everything)
            postgres.psql("-c", publication(name, mode, tables))
            file = connect / f"{name}.properties"
            file.write_text("\n".join(f"{key}={value}" for key, value in connector(name, mode, tables, postgres).items()))
            files.append(file)
        worker = Java(jars, connect, "-Xmx3g", "org.apache.kafka.connect.cli.ConnectStandalone", connect / "worker.properties", *files)
        started.append(worker)

        def failed():
            worker.alive()
            return {line.split("WorkerSourceTask{id=")[1].split("-0}")[0] for line in worker.log.read_text().splitlines() if "Task threw an uncaught" in line}

        def streaming():
            running = postgres.psql("-c", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
            return int(running) + len(failed()) >= len(modes)
        until("the snapshots", 240, streaming)
        postgres.psql("-f", HERE / "matrix" / "changes.sql")
        given.out.mkdir(exist_ok=True)
        for name in modes:
            def done():
                if name in failed():
                    return ["failed"]
                records = read_all(bootstrap, name)
                return records if any(r.topic() == f"{name}.m.done" and r.value() and b'"op":"c"' in r.value() for r in records) else None
            records = until(f"the end of {name}", 120, done)
            if records == ["failed"]:
                print(f"{name}: the connector failed, see the log (--keep)")
                continue
            written = Written()
            for message in records:
                written.record(message)
            (given.out / f"{name}.jsonl").write_text("\n".join(written.lines) + "\n")
            print(f"{name}: {len(records)} records, {len(written.schemas)} schemas")
    finally:
        for one in reversed(started):
            one.stop()
        if given.keep:
            print(f"kept {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()

"""One member of a consumer group, a paced producer, or a seeking reader, with one Python client.

member.py CLIENT consume BOOTSTRAP TOPIC GROUP SESSION_MS [INSTANCE]   until SIGTERM
member.py CLIENT produce BOOTSTRAP TOPIC COUNT PAUSE_MS                idempotent, COUNT values in each codec
member.py CLIENT seek BOOTSTRAP TOPIC PARTITION OFFSET                 the record there, then the first one, then the one there

CLIENT is confluent (librdkafka) or kafka-python. A consumer prints `A partitions` when it is assigned some, and
`R partition offset value` for each record before it commits: by turns with and without waiting, and by explicit offsets.
"""
import signal
import sys
import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
running = True


def stop(*_):
    global running
    running = False


def say(text):
    print(text, flush=True)


def assigned(partitions):
    say("A " + ",".join(str(p) for p in sorted(partitions)))


def show(records):
    if records:
        say("\n".join(f"R {p} {o} {v.decode()}" for p, o, v in records))


def next_offsets(records):
    offsets = {}
    for partition, offset, _ in records:
        offsets[partition] = offset + 1
    return offsets


class Confluent:
    def __init__(self, bootstrap, topic):
        self.common, self.topic = {"bootstrap.servers": bootstrap, "log_level": 2}, topic

    def consume(self, group, session, instance):
        from confluent_kafka import Consumer, TopicPartition

        config = {
            **self.common, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "session.timeout.ms": session, "heartbeat.interval.ms": 500, "fetch.wait.max.ms": 100,
            # Static members are given all their partitions in one call.
            "partition.assignment.strategy": "range" if instance else "cooperative-sticky",
        }
        if instance:
            config["group.instance.id"] = instance
        consumer = Consumer(config)
        consumer.subscribe([self.topic], on_assign=lambda _, partitions: assigned(p.partition for p in partitions))
        turn = 0
        while running:
            messages = [m for m in consumer.consume(100, 0.2) if not m.error()]
            records = [(m.partition(), m.offset(), m.value()) for m in messages]
            show(records)
            if not records:
                continue
            turn += 1
            try:
                if turn % 3 == 0:
                    offsets = [TopicPartition(self.topic, p, o) for p, o in next_offsets(records).items()]
                    consumer.commit(offsets=offsets, asynchronous=False)
                else:
                    consumer.commit(asynchronous=turn % 3 == 1)
            except Exception as error:  # the broker restarts, or the group does
                say(f"commit failed: {error}")
        consumer.close()

    def produce(self, count, pause):
        from confluent_kafka import Producer

        acked = 0

        def done(error, _):
            nonlocal acked
            if error is None:
                acked += 1
            else:
                say(f"not acknowledged: {error}")

        producers = {codec: Producer({
            **self.common, "enable.idempotence": True, "acks": "all", "compression.type": codec, "linger.ms": 20,
            "message.timeout.ms": 120000,
        }) for codec in CODECS}
        for i in range(count):
            for codec, producer in producers.items():
                producer.produce(self.topic, key=str(i % 50), value=f"{codec}-{i}", on_delivery=done)
                producer.poll(0)
            time.sleep(pause)
        for producer in producers.values():
            producer.flush(120)
        return acked

    def seek(self, partition, offset):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self.common, "group.id": "seeker"})
        consumer.assign([TopicPartition(self.topic, partition, offset)])
        for target in [None, 0, offset]:
            if target is not None:
                consumer.seek(TopicPartition(self.topic, partition, target))
            message = None
            while message is None or message.error():
                message = consumer.poll(20)
            show([(message.partition(), message.offset(), message.value())])
        consumer.close()


class KafkaPython:
    def __init__(self, bootstrap, topic):
        self.bootstrap, self.topic = bootstrap, topic

    def consume(self, group, session, instance):
        from kafka import ConsumerRebalanceListener, KafkaConsumer
        from kafka.structs import OffsetAndMetadata, TopicPartition

        class Listener(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked):
                pass

            def on_partitions_assigned(self, partitions):
                assigned(p.partition for p in partitions)

        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=session, heartbeat_interval_ms=500, request_timeout_ms=session + 5000,
            group_instance_id=instance, max_poll_records=100,
        )
        consumer.subscribe([self.topic], listener=Listener())
        turn = 0
        while running:
            # kafka-python 3.0.12 forgets an assignment that comes after its poll has run out, and waits for ever.
            batches = consumer.poll(timeout_ms=2000).values()
            records = [(r.partition, r.offset, r.value) for batch in batches for r in batch]
            show(records)
            if not records:
                continue
            turn += 1
            try:
                if turn % 3 == 0:
                    consumer.commit({
                        TopicPartition(self.topic, p): OffsetAndMetadata(o, "", -1)
                        for p, o in next_offsets(records).items()
                    })
                elif turn % 3 == 1:
                    consumer.commit_async()
                else:
                    consumer.commit()
            except Exception as error:  # the broker restarts, or the group does
                say(f"commit failed: {error}")
        consumer.close()

    def produce(self, count, pause):
        from kafka import KafkaProducer

        producers = {codec: KafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=True, acks="all", linger_ms=20,
            compression_type=None if codec == "none" else codec, delivery_timeout_ms=120000, request_timeout_ms=10000,
            max_block_ms=60000,
        ) for codec in CODECS}
        futures = []
        for i in range(count):
            for codec, producer in producers.items():
                futures.append(
                    producer.send(self.topic, key=str(i % 50).encode(), value=f"{codec}-{i}".encode()))
            time.sleep(pause)
        for future in futures:
            future.get(timeout=120)
        for producer in producers.values():
            producer.close()
        return len(futures)

    def seek(self, partition, offset):
        from kafka import KafkaConsumer
        from kafka.structs import TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, max_poll_records=1)
        at = TopicPartition(self.topic, partition)
        consumer.assign([at])
        for target in [offset, 0, offset]:
            consumer.seek(at, target)
            record = next(consumer)
            show([(record.partition, record.offset, record.value)])
        consumer.close()


def main():
    signal.signal(signal.SIGTERM, stop)
    client, what, bootstrap, topic, *rest = sys.argv[1:]
    client = {"confluent": Confluent, "kafka-python": KafkaPython}[client](bootstrap, topic)
    if what == "consume":
        client.consume(rest[0], int(rest[1]), rest[2] if len(rest) > 2 else None)
    elif what == "produce":
        say(f"acked {client.produce(int(rest[0]), int(rest[1]) / 1000)}")
    else:
        client.seek(int(rest[0]), int(rest[1]))


main()

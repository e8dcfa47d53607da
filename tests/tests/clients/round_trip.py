"""Produces or consumes a counted load with one Python client.

round_trip.py CLIENT produce BOOTSTRAP TOPIC CODEC COUNT   idempotent, acks=all; prints `acked N`
round_trip.py CLIENT consume BOOTSTRAP TOPIC GROUP COUNT   until COUNT different values came; prints `read DISTINCT TOTAL`

CLIENT is confluent (librdkafka) or kafka-python. Values are v0, v1, ...; the key is the number modulo 50.
"""
import sys
import time

DEADLINE = time.time() + 120


def fail(text):
    print(text, flush=True)
    sys.exit(1)


def produce_confluent(bootstrap, topic, codec, count):
    from confluent_kafka import Producer

    acked = 0

    def done(error, message):
        nonlocal acked
        if error is not None:
            fail(f"not acknowledged: {error}")
        acked += 1

    producer = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "compression.type": codec,
        "linger.ms": 5, "message.timeout.ms": 120000, "log_level": 2,
    })
    for i in range(count):
        while True:
            try:
                producer.produce(topic, key=str(i % 50), value=f"v{i}", on_delivery=done)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        if i % 200 == 0:
            print(f"sent {i}", flush=True)
            time.sleep(0.02)
    producer.flush(120)
    return acked


def produce_kafka_python(bootstrap, topic, codec, count):
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, acks="all",
        compression_type=None if codec == "none" else codec, linger_ms=5, delivery_timeout_ms=120000,
        request_timeout_ms=10000, max_block_ms=60000,
    )
    futures = []
    for i in range(count):
        futures.append(producer.send(topic, key=str(i % 50).encode(), value=f"v{i}".encode()))
        if i % 200 == 0:
            print(f"sent {i}", flush=True)
            time.sleep(0.02)
    for future in futures:
        future.get(timeout=120)
    producer.close()
    return len(futures)


def consume_confluent(bootstrap, topic, group, count):
    from confluent_kafka import Consumer

    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 6000, "log_level": 2,
    })
    consumer.subscribe([topic])
    seen, total = set(), 0
    while len(seen) < count:
        if time.time() > DEADLINE:
            fail(f"read only {len(seen)} of {count}")
        message = consumer.poll(0.5)
        if message is None or message.error():
            continue
        seen.add(message.value())
        total += 1
        if total % 500 == 0:
            print(f"read {total}", flush=True)
            try:
                consumer.commit(asynchronous=False)
            except Exception as error:  # the broker restarts
                print(f"commit failed: {error}", flush=True)
    if total % 500:  # else there is nothing new to commit, which is an error here
        consumer.commit(asynchronous=False)
    consumer.close()
    return len(seen), total


def consume_kafka_python(bootstrap, topic, group, count):
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=6000, request_timeout_ms=15000,
    )
    seen, total, since = set(), 0, 0
    while len(seen) < count:
        if time.time() > DEADLINE:
            fail(f"read only {len(seen)} of {count}")
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                seen.add(record.value)
                total += 1
        if total // 500 > since:
            since = total // 500
            print(f"read {total}", flush=True)
            try:
                consumer.commit()
            except Exception as error:  # the broker restarts
                print(f"commit failed: {error}", flush=True)
    consumer.commit()
    consumer.close()
    return len(seen), total


def main():
    client, what, bootstrap, topic, extra, count = sys.argv[1:]
    suffix = client.replace("-", "_")
    result = globals()[f"{what}_{suffix}"](bootstrap, topic, extra, int(count))
    if what == "produce":
        print(f"acked {result}")
    else:
        print(f"read {result[0]} {result[1]}")


main()

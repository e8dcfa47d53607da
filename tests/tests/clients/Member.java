import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The same as member.py, with the Java client. */
public class Member {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static volatile boolean running = true;

    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[1]);
        switch (args[0]) {
            case "consume" -> consume(config, args[2], args[3], args[4], args.length > 5 ? args[5] : null);
            case "produce" -> produce(config, args[2], Integer.parseInt(args[3]), Integer.parseInt(args[4]));
            default -> seek(config, args[2], Integer.parseInt(args[3]), Long.parseLong(args[4]));
        }
    }

    static void consume(Properties config, String topic, String group, String session, String instance)
            throws Exception {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            running = false;
            try {
                main.join(20_000);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
            // A JVM that a signal ends answers 143, whatever was done in order.
            Runtime.getRuntime().halt(main.isAlive() ? 1 : 0);
        }));
        config.put("group.id", group);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("session.timeout.ms", session);
        config.put("heartbeat.interval.ms", "500");
        config.put("max.poll.records", "100");
        if (instance != null) {
            config.put("group.instance.id", instance);
        }
        int turn = 0;
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                    say("A " + partitions.stream().map(TopicPartition::partition).sorted().map(String::valueOf)
                            .collect(Collectors.joining(",")));
                }
            });
            while (running) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
                Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
                StringBuilder lines = new StringBuilder();
                for (ConsumerRecord<String, String> record : records) {
                    lines.append(line(record)).append('\n');
                    next.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                if (records.isEmpty()) {
                    continue;
                }
                System.out.print(lines);
                System.out.flush();
                turn++;
                try {
                    switch (turn % 3) {
                        case 0 -> consumer.commitSync(next, Duration.ofSeconds(5));
                        case 1 -> consumer.commitAsync();
                        default -> consumer.commitSync(Duration.ofSeconds(5));
                    }
                } catch (Exception error) { // the broker restarts, or the group does
                    say("commit failed: " + error);
                }
            }
        }
    }

    static void produce(Properties config, String topic, int count, int pause) throws Exception {
        config.put("acks", "all");
        config.put("enable.idempotence", "true");
        config.put("linger.ms", "20");
        config.put("delivery.timeout.ms", "120000");
        config.put("request.timeout.ms", "10000");
        config.put("buffer.memory", "4194304");
        List<KafkaProducer<String, String>> producers = new ArrayList<>();
        for (String codec : CODECS) {
            config.put("compression.type", codec);
            producers.add(new KafkaProducer<>(config, new StringSerializer(), new StringSerializer()));
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            for (int c = 0; c < CODECS.size(); c++) {
                String value = CODECS.get(c) + "-" + i;
                sent.add(producers.get(c).send(new ProducerRecord<>(topic, String.valueOf(i % 50), value)));
            }
            Thread.sleep(pause);
        }
        for (Future<RecordMetadata> future : sent) {
            future.get(120, TimeUnit.SECONDS);
        }
        producers.forEach(KafkaProducer::close);
        say("acked " + sent.size());
    }

    static void seek(Properties config, String topic, int partition, long offset) {
        config.put("max.poll.records", "1");
        TopicPartition at = new TopicPartition(topic, partition);
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(List.of(at));
            for (long target : new long[] {offset, 0, offset}) {
                consumer.seek(at, target);
                ConsumerRecords<String, String> records = ConsumerRecords.empty();
                while (records.isEmpty()) {
                    records = consumer.poll(Duration.ofSeconds(1));
                }
                records.forEach(record -> say(line(record)));
            }
        }
    }

    static String line(ConsumerRecord<String, String> record) {
        return "R " + record.partition() + " " + record.offset() + " " + record.value();
    }

    static void say(String text) {
        System.out.println(text);
        System.out.flush();
    }
}

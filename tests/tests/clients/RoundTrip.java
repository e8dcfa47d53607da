import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The same counted load as round_trip.py, with the Java client: produce|consume BOOTSTRAP TOPIC CODEC|GROUP COUNT. */
public class RoundTrip {
    static final long DEADLINE = System.currentTimeMillis() + 120_000;

    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[4]);
        if (args[0].equals("produce")) {
            produce(args[1], args[2], args[3], count);
        } else {
            consume(args[1], args[2], args[3], count);
        }
        System.exit(0);
    }

    static void produce(String bootstrap, String topic, String codec, int count) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("acks", "all");
        config.put("enable.idempotence", "true");
        config.put("compression.type", codec);
        config.put("linger.ms", "5");
        config.put("delivery.timeout.ms", "120000");
        config.put("request.timeout.ms", "10000");
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < count; i++) {
                sent.add(producer.send(new ProducerRecord<>(topic, String.valueOf(i % 50), "v" + i)));
                if (i % 200 == 0) {
                    say("sent " + i);
                    Thread.sleep(20);
                }
            }
            for (Future<RecordMetadata> future : sent) {
                future.get(120, TimeUnit.SECONDS);
            }
        }
        say("acked " + sent.size());
    }

    static void consume(String bootstrap, String topic, String group, int count) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("group.id", group);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("session.timeout.ms", "6000");
        Set<String> seen = new HashSet<>();
        int total = 0;
        int since = 0;
        try (KafkaConsumer<String, String> consumer =
                new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (seen.size() < count) {
                if (System.currentTimeMillis() > DEADLINE) {
                    say("read only " + seen.size() + " of " + count);
                    System.exit(1);
                }
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    seen.add(record.value());
                    total++;
                }
                if (total / 500 > since) {
                    since = total / 500;
                    say("read " + total);
                    try {
                        consumer.commitSync(Duration.ofSeconds(5));
                    } catch (Exception error) { // the broker restarts
                        say("commit failed: " + error);
                    }
                }
            }
            consumer.commitSync();
        }
        say("read " + seen.size() + " " + total);
    }

    static void say(String text) {
        System.out.println(text);
        System.out.flush();
    }
}

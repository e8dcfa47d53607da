//! Scenarios of the controller, each from an empty image on.

use super::*;

const POLICY: Policy = Policy { default_partitions: 3, max_partitions: 100 };

fn broker(incarnation: u128) -> BrokerRecord {
    BrokerRecord {
        node_id: 1,
        incarnation: Uuid::from_u128(incarnation),
        directory: Uuid::from_u128(77),
        host: "localhost".to_owned(),
        port: 9092,
        epoch: None,
    }
}

/// An image and the index of its last entry.
struct Cluster {
    image: Image,
    index: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self { image: Image::default(), index: 0 };
        let records = register_broker(&cluster.image, broker(1), None).expect("the first start");
        cluster.commit(&records);
        cluster
    }

    fn commit(&mut self, records: &[Record]) {
        self.index += 1;
        self.image.apply(self.index, records).expect("the controller's records apply");
    }

    fn create(&mut self, topic: &NewTopic) -> Result<(), Refusal> {
        let records = create_topic(&self.image, POLICY, topic)?;
        self.commit(&records);
        Ok(())
    }

    fn epochs(&self, name: &str) -> Vec<i32> {
        let topic = self.image.topic(name).expect("the topic is there");
        topic.partitions.iter().map(|partition| partition.leader_epoch).collect()
    }
}

fn topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: Uuid::new_v4(),
        partitions: -1,
        replication_factor: -1,
        ..NewTopic::default()
    }
}

#[test]
fn a_topic_gets_the_default_partitions_led_by_the_broker() {
    let mut cluster = Cluster::new();
    cluster.create(&topic("orders")).expect("created");
    let topic = cluster.image.topic("orders").expect("is there");
    assert_eq!(topic.partitions.len(), 3);
    assert!(topic.partitions.iter().all(|partition| partition.leader == 1 && partition.isr == [1]));
}

#[test]
fn impossible_topics_are_refused_and_change_nothing() {
    let mut cluster = Cluster::new();
    cluster.create(&topic("a.b")).expect("created");
    let before = cluster.image.clone();
    let refused = |cluster: &mut Cluster, wrong: NewTopic| cluster.create(&wrong).expect_err("refused");
    assert!(matches!(refused(&mut cluster, topic("a b")), Refusal::InvalidTopic(_)));
    assert!(matches!(refused(&mut cluster, topic("..")), Refusal::InvalidTopic(_)));
    assert!(matches!(refused(&mut cluster, topic(&"x".repeat(250))), Refusal::InvalidTopic(_)));
    assert!(matches!(refused(&mut cluster, topic("a.b")), Refusal::TopicExists(_)));
    assert!(matches!(refused(&mut cluster, topic("a_b")), Refusal::TopicCollision(..)));
    let none = NewTopic { partitions: 0, ..topic("c") };
    assert!(matches!(refused(&mut cluster, none), Refusal::InvalidPartitions(0, _)));
    let many = NewTopic { partitions: 101, ..topic("c") };
    assert!(matches!(refused(&mut cluster, many), Refusal::InvalidPartitions(101, _)));
    let copies = NewTopic { replication_factor: 3, ..topic("c") };
    assert_eq!(refused(&mut cluster, copies), Refusal::InvalidReplicationFactor(3, 1));
    let configs = BTreeMap::from([("no.such".to_owned(), "1".to_owned())]);
    let config = NewTopic { configs, ..topic("c") };
    assert!(matches!(refused(&mut cluster, config), Refusal::InvalidConfig(_)));
    let gap = NewTopic { assignments: BTreeMap::from([(1, vec![1])]), ..topic("c") };
    assert!(matches!(refused(&mut cluster, gap), Refusal::InvalidAssignment(_)));
    let stranger = NewTopic { assignments: BTreeMap::from([(0, vec![9])]), ..topic("c") };
    assert!(matches!(refused(&mut cluster, stranger), Refusal::InvalidAssignment(_)));
    assert_eq!(cluster.image, before);
}

#[test]
fn an_unclean_start_raises_the_leader_epochs_and_a_clean_one_does_not() {
    let mut cluster = Cluster::new();
    cluster.create(&topic("orders")).expect("created");
    let epoch = cluster.image.brokers[&1].epoch;

    let clean = register_broker(&cluster.image, broker(2), Some(epoch)).expect("registers");
    cluster.commit(&clean);
    assert_eq!(cluster.epochs("orders"), [0, 0, 0]);
    assert!(cluster.image.brokers[&1].epoch > epoch);

    // The file of the run before last proves nothing about the last one.
    let stale = register_broker(&cluster.image, broker(3), Some(epoch)).expect("registers");
    cluster.commit(&stale);
    assert_eq!(cluster.epochs("orders"), [1, 1, 1]);

    let none = register_broker(&cluster.image, broker(4), None).expect("registers");
    cluster.commit(&none);
    assert_eq!(cluster.epochs("orders"), [2, 2, 2]);
}

#[test]
fn another_directory_cannot_take_over_a_node_id() {
    let cluster = Cluster::new();
    let other = BrokerRecord { directory: Uuid::from_u128(78), ..broker(2) };
    assert_eq!(register_broker(&cluster.image, other, None), Err(Refusal::NodeIdTaken(1)));
}

#[test]
fn producer_id_blocks_never_overlap() {
    let mut cluster = Cluster::new();
    let mut last = -1;
    for _ in 0..5 {
        let (first, records) = allocate_producer_ids(&cluster.image).expect("ids are left");
        assert!(first > last);
        last = first + PRODUCER_ID_BLOCK - 1;
        cluster.commit(&records);
    }
}

#[test]
fn partitions_only_grow_and_never_those_of_the_offsets_topic() {
    let mut cluster = Cluster::new();
    cluster.create(&topic("orders")).expect("created");
    cluster.create(&topic(crate::coord::OFFSETS_TOPIC)).expect("created");
    let grow =
        |cluster: &Cluster, name: &str, count| create_partitions(&cluster.image, POLICY, name, count, None);
    assert!(matches!(grow(&cluster, "orders", 3), Err(Refusal::InvalidPartitions(3, _))));
    let records = grow(&cluster, "orders", 5).expect("grows");
    cluster.commit(&records);
    assert_eq!(cluster.image.topic("orders").expect("is there").partitions.len(), 5);
    assert!(matches!(grow(&cluster, crate::coord::OFFSETS_TOPIC, 9), Err(Refusal::Internal(_))));
    assert!(matches!(grow(&cluster, "none", 2), Err(Refusal::UnknownTopic(_))));
}

#[test]
fn settings_are_set_deleted_and_edited_as_lists() {
    let mut cluster = Cluster::new();
    cluster.create(&topic("orders")).expect("created");
    let mut alter = |change: ConfigChange| {
        let changes = [("cleanup.policy".to_owned(), change)];
        let default = |_: &str| "delete".to_owned();
        let records = alter_topic_configs(&cluster.image, "orders", &changes, default)?;
        cluster.commit(&records);
        let topic = cluster.image.topic("orders").expect("is there");
        Ok::<_, Refusal>(topic.configs.get("cleanup.policy").cloned())
    };
    assert_eq!(alter(ConfigChange::Append("compact".to_owned())), Ok(Some("delete,compact".to_owned())));
    assert_eq!(alter(ConfigChange::Subtract("delete".to_owned())), Ok(Some("compact".to_owned())));
    assert_eq!(alter(ConfigChange::Delete), Ok(None));
    assert!(matches!(alter(ConfigChange::Set("shred".to_owned())), Err(Refusal::InvalidConfig(_))));
}

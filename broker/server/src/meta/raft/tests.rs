//! The group of one on a disk that can lose power.

use std::path::PathBuf;

use uuid::Uuid;

use aqueduct_log::MemDisk;

use super::*;

fn dir() -> PathBuf {
    PathBuf::from("/meta")
}

async fn open(disk: &MemDisk) -> MetaRaft {
    MetaRaft::open(Arc::new(disk.clone()), &dir(), "localhost:1".to_owned()).await.expect("opens")
}

async fn create(meta: &MetaRaft, name: &str) -> Result<u64, MetaError> {
    let topic = Record::Topic { id: Uuid::new_v4(), name: name.to_owned() };
    meta.propose(meta.image().version, &[topic]).await
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_power_loss() {
    let mut disk = MemDisk::with_dir("/meta");
    for round in 0..5_u64 {
        let meta = open(&disk).await;
        assert_eq!(meta.image().topics().count() as u64, round);
        create(&meta, &format!("topic-{round}")).await.expect("commits");
        // No shutdown: the power goes.
        disk = disk.crash(round);
    }
}

#[tokio::test]
async fn a_snapshot_and_a_purged_log_give_the_same_image() {
    let disk = MemDisk::with_dir("/meta");
    let meta = open(&disk).await;
    for at in 0..20 {
        create(&meta, &format!("topic-{at}")).await.expect("commits");
    }
    meta.snapshot().await;
    create(&meta, "after").await.expect("commits");
    let before = meta.image();
    meta.shutdown().await;
    drop(meta);
    let disk = disk.crash(7);
    let meta = open(&disk).await;
    assert_eq!(meta.image(), before);
    create(&meta, "again").await.expect("commits");
}

#[tokio::test]
async fn a_decision_on_an_outdated_image_is_not_applied() {
    let disk = MemDisk::with_dir("/meta");
    let meta = open(&disk).await;
    let version = meta.image().version;
    create(&meta, "first").await.expect("commits");
    let late = Record::Topic { id: Uuid::new_v4(), name: "second".to_owned() };
    assert!(matches!(meta.propose(version, &[late]).await, Err(MetaError::Outdated)));
    assert!(meta.image().topic("second").is_none());
}

#[tokio::test]
async fn a_voter_without_its_log_is_refused() {
    let disk = MemDisk::with_dir("/meta");
    let identity = identity::Identity::load_or_draw(&disk, &dir(), true).expect("is drawn");
    identity.confirm(&disk, &dir()).expect("is written");
    let refused = MetaRaft::open(Arc::new(disk), &dir(), "localhost:1".to_owned()).await;
    assert!(matches!(refused, Err(MetaError::VoterWithoutLog(_))));
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_group_instead_of_lying() {
    let disk = MemDisk::with_dir("/meta");
    let meta = open(&disk).await;
    disk.fault_at(disk.operations(), aqueduct_log::Fault::PowerOff);
    let refused = tokio::time::timeout(LEAD_WITHIN, create(&meta, "lost")).await.expect("is answered");
    assert!(matches!(refused, Err(MetaError::Stopped(_))), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_delays_a_change_and_does_not_stop_the_group() {
    let disk = MemDisk::with_dir("/meta");
    let meta = open(&disk).await;
    disk.fault_next(aqueduct_log::Fault::PartWriteThenFail(std::io::ErrorKind::StorageFull));
    create(&meta, "late").await.expect("commits once there is room");
    meta.check().expect("the group runs");
    drop(meta);
    assert!(open(&disk.crash(1)).await.image().topic("late").is_some());
}

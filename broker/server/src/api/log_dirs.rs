//! DescribeLogDirs: what lies in the data directory and how much room there is.

use std::path::Path;
use std::sync::Arc;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

use super::Ask;
use crate::node::Node;
use crate::partition::{Replica, TopicReplicas};

pub(super) async fn describe_log_dirs(
    node: Arc<Node>,
    _ask: Ask,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let topics = match &request.topics {
        None => {
            let mut all = node.partitions.topics();
            all.sort_by(|one, other| one.name().cmp(other.name()));
            all.iter().map(|topic| describe(topic, topic.partitions())).collect()
        }
        Some(asked) => asked.iter().filter_map(|asked| describe_some(&node, asked)).collect(),
    };
    let dir = node.config.data_dir.clone();
    // May wait for the disk.
    let looked =
        tokio::task::spawn_blocking(move || (volume(&dir), std::path::absolute(&dir).unwrap_or(dir)));
    let (volume, dir) = match looked.await {
        Ok(looked) => looked,
        Err(_) => (None, node.config.data_dir.clone()),
    };
    let (total_bytes, usable_bytes) = volume.unwrap_or((-1, -1));
    let online = node.partitions.check_dir().is_ok();
    let code = if online { ErrorCode::None } else { ErrorCode::KafkaStorageError };
    let result = DescribeLogDirsResult {
        error_code: code as i16,
        log_dir: dir.display().to_string().into(),
        topics,
        total_bytes,
        usable_bytes,
        ..DescribeLogDirsResult::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

/// What is not there is left out.
fn describe_some(node: &Node, asked: &DescribableLogDirTopic) -> Option<DescribeLogDirsTopic> {
    let topic = node.partitions.topic(&asked.topic)?;
    let some = asked.partitions.iter().filter_map(|index| topic.partition(*index));
    Some(describe(&topic, some)).filter(|topic| !topic.partitions.is_empty())
}

fn describe<'a>(
    topic: &TopicReplicas,
    replicas: impl Iterator<Item = &'a Arc<Replica>>,
) -> DescribeLogDirsTopic {
    let partition = |replica: &Arc<Replica>| {
        let size = replica.log().map_or(0, |log| log.size());
        DescribeLogDirsPartition {
            partition_index: replica.partition(),
            partition_size: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: (replica.log_end() - replica.high_watermark()).max(0),
            is_future_key: false,
        }
    };
    DescribeLogDirsTopic { name: topic.name().into(), partitions: replicas.map(partition).collect() }
}

/// Bytes of the volume that a directory is on: all, and those that can be used.
fn volume(dir: &Path) -> Option<(i64, i64)> {
    let found = rustix::fs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(found.f_blocks), bytes(found.f_bavail)))
}

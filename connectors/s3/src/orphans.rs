//! Multipart uploads that a crash left behind: invisible, and paid for until somebody aborts them.
//!
//! **Invariant:** only uploads whose key has this connector's path and the name of one of the given partitions are
//! touched.

use aqueduct_core::Result;
use aqueduct_core::rolling::is_name_of;
use aqueduct_core::sink::TopicPartition;
use aqueduct_core::template::PathTemplate;

use crate::store::Store;

/// Aborts those of the given partitions; none of them has an upload of this task under way.
pub(crate) async fn abort(
    store: &Store,
    path: &PathTemplate,
    extension: &str,
    partitions: &[TopicPartition],
) -> Result<()> {
    let mut marker = Some((None, None));
    while let Some(from) = marker {
        let (uploads, next) = store.pending(path.literal_prefix(), from.clone()).await?;
        for upload in uploads.iter().filter(|upload| is_own(&upload.key, path, extension, partitions)) {
            tracing::info!(key = %upload.key, "aborting a multipart upload that was never completed");
            store.abort(&upload.key, &upload.id).await?;
        }
        // A server that does not move on would keep us here for ever.
        marker = next.filter(|next| *next != from);
    }
    Ok(())
}

fn is_own(key: &str, path: &PathTemplate, extension: &str, partitions: &[TopicPartition]) -> bool {
    let (dir, name) = key.split_at(key.rfind('/').map_or(0, |slash| slash + 1));
    path.matches(dir) && partitions.iter().any(|origin| is_name_of(name, origin, extension))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_own_keys_match() {
        let path = PathTemplate::parse("lake/{topic}/").expect("valid");
        let own =
            |key| is_own(key, &path, "jsonl", &[TopicPartition { topic: Arc::from("t"), partition: 1 }]);
        assert!(own("lake/t/t+1+00000000000000000000.jsonl"));
        assert!(own("lake/t/t+1+00000000000000000000.3.jsonl"));
        for other in [
            "lake/t/t+0+00000000000000000000.jsonl",
            "lake/t+1+00000000000000000000.jsonl",
            "lake/t/x/t+1+00000000000000000000.jsonl",
            "sea/t/t+1+00000000000000000000.jsonl",
            "lake/t/t+1+00000000000000000000.parquet",
            "lake/t/",
        ] {
            assert!(!own(other), "{other}");
        }
    }
}

//! How far a sink is behind, and how near its unread data is to being removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aqueduct_client::Admin;
use aqueduct_core::sink::TopicPartition;
use parking_lot::Mutex;

use crate::metrics::{Call, ConnectorStats};

/// Next offset and the timestamp of the last record taken, by partition.
pub(crate) type Positions = Mutex<BTreeMap<TopicPartition, (i64, Option<i64>)>>;

const INTERVAL: Duration = Duration::from_secs(2);
/// Topics' settings change rarely.
const RETENTION_EVERY: u32 = 30;
const WARN_PERCENT: i64 = 50;

/// Reports until it is dropped.
pub(crate) async fn watch(admin: Admin, stats: Arc<ConnectorStats>, task: usize, positions: Arc<Positions>) {
    let mut retention: BTreeMap<String, Option<i64>> = BTreeMap::new();
    let mut round = 0u32;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let at = positions.lock().clone();
        if at.is_empty() {
            stats.set_lag(task, 0, "records");
            continue;
        }
        let ends = match admin.watermarks(at.keys().cloned().collect()).await {
            Ok(ends) => ends,
            // The consumer tries for ever and tells nobody.
            Err(error) => {
                stats.trying_again(task, Call::Fetch, &error);
                continue;
            }
        };
        stats.works(task, Call::Fetch);
        if round.is_multiple_of(RETENTION_EVERY) {
            retention.clear();
        }
        round = round.wrapping_add(1);
        let mut lag = 0;
        let mut worst = (0, None);
        for (tp, _, high) in ends {
            let Some((next, timestamp)) = at.get(&tp) else { continue };
            let behind = u64::try_from(high - next).unwrap_or(0);
            lag += behind;
            if behind == 0 {
                continue;
            }
            let topic = tp.topic.to_string();
            if !retention.contains_key(&topic) {
                let config = admin.topic_config(&topic).await.ok();
                let keep =
                    config.and_then(|config| config.get("retention.ms")?.parse().ok()).filter(|ms| *ms > 0);
                retention.insert(topic.clone(), keep);
            }
            let (Some(Some(keep)), Some(timestamp)) = (retention.get(&topic), timestamp) else { continue };
            let used = used_percent(now_ms() - timestamp, *keep);
            if used > worst.0 {
                worst = (used, Some(tp));
            }
        }
        stats.set_lag(task, lag, "records");
        let warning = worst.1.filter(|_| worst.0 >= WARN_PERCENT).map(|tp| {
            format!("`{tp}`: unread records have used {} % of the topic's retention; what is not read in time is lost", worst.0)
        });
        stats.set_retention(task, worst.0, warning);
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn used_percent(age_ms: i64, keep_ms: i64) -> i64 {
    (age_ms.max(0).saturating_mul(100) / keep_ms.max(1)).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_retention_is_that_of_the_age() {
        assert_eq!(used_percent(30_000, 60_000), 50);
        assert_eq!(used_percent(-5, 60_000), 0);
        assert_eq!(used_percent(i64::MAX, 1), 1000);
    }
}

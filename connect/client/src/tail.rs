//! Compacted topics, read to their end and then followed.
//!
//! **Invariant:** when [`TopicTail::start`] or [`TopicTail::read_to_end`] return, every record that was committed
//! before the call has been applied, in the order of its partition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use aqueduct_core::sink::TopicPartition;
use aqueduct_core::{Error, Result, Topic};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use crate::admin::watermarks;
use crate::consumer::LoggedConsumer;
use crate::error::error;
use crate::settings::ClientSettings;

const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// A record of a compacted topic.
#[derive(Clone, Debug)]
pub struct TailRecord {
    /// Topic.
    pub topic: Topic,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` deletes.
    pub value: Option<Bytes>,
}

type Apply = Arc<dyn Fn(TailRecord) + Send + Sync>;
type Native = BaseConsumer<LoggedConsumer>;
/// The next offset of each partition, all before it applied.
type Positions = BTreeMap<TopicPartition, i64>;

/// A follower of compacted topics.
pub struct TopicTail {
    native: Weak<Native>,
    positions: watch::Receiver<Positions>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    /// The first reading is complete.
    started: AtomicBool,
    ready: Mutex<bool>,
    wake: Condvar,
}

impl Shared {
    fn wake(&self) {
        *self.ready.lock() = true;
        self.wake.notify_one();
    }

    fn wait(&self, within: Duration) {
        let mut ready = self.ready.lock();
        if !*ready {
            self.wake.wait_for(&mut ready, within);
        }
        *ready = false;
    }
}

impl TopicTail {
    /// Reads the topics, which must exist, to their end; `apply` is called for each record, on the follower's thread.
    pub async fn start(
        settings: &ClientSettings,
        client_id: &str,
        topics: &[String],
        apply: impl Fn(TailRecord) + Send + Sync + 'static,
    ) -> Result<Self> {
        let config = settings.reader(client_id);
        let names: Vec<Topic> = topics.iter().map(|name| Topic::from(name.as_str())).collect();
        let shared = Arc::new(Shared::default());
        let (positions_in, positions) = watch::channel(Positions::new());
        let follower_shared = Arc::clone(&shared);
        let apply: Apply = Arc::new(apply);
        let started = tokio::task::spawn_blocking(move || {
            let native = Native::from_config_and_context(&config, LoggedConsumer);
            let native = Arc::new(native.map_err(|e| error("creating a reader", &e))?);
            let partitions = partitions(&native, &names)?;
            let mut at = Positions::new();
            let mut ends = Positions::new();
            for tp in &partitions {
                // Asked before anything is fetched: a fetch from an empty partition waits, and others with it.
                let (low, high) = watermarks(&*native, tp)?;
                at.insert(tp.clone(), if low == high { high } else { -1 });
                ends.insert(tp.clone(), high);
            }
            let queues = assign(&native, partitions, &follower_shared)?;
            positions_in.send_replace(at);
            let weak = Arc::downgrade(&native);
            let follower =
                Follower { native, queues, positions: positions_in, shared: follower_shared, apply };
            let thread = std::thread::Builder::new()
                .name("topic-tail".into())
                .spawn(move || follower.run())
                .map_err(|e| Error::fatal("cannot start a thread").with_source(e))?;
            Ok::<_, Error>((weak, thread, ends))
        });
        let (native, thread, ends) = started.await.map_err(|_| Error::cancelled())??;
        let tail = Self { native, positions, shared, thread: Some(thread) };
        tail.wait_for(&ends).await?;
        tail.shared.started.store(true, Ordering::Release);
        Ok(tail)
    }

    /// Waits until everything written before this call is applied.
    pub async fn read_to_end(&self) -> Result<()> {
        let partitions: Vec<TopicPartition> = self.positions.borrow().keys().cloned().collect();
        let native = Weak::clone(&self.native);
        let ends = tokio::task::spawn_blocking(move || -> Result<Positions> {
            let native = native.upgrade().ok_or_else(Error::cancelled)?;
            partitions.into_iter().map(|tp| watermarks(&*native, &tp).map(|(_, high)| (tp, high))).collect()
        });
        let ends = ends.await.map_err(|_| Error::cancelled())??;
        self.wait_for(&ends).await
    }

    async fn wait_for(&self, ends: &Positions) -> Result<()> {
        let mut positions = self.positions.clone();
        let reached =
            |at: &Positions| ends.iter().all(|(tp, end)| at.get(tp).is_some_and(|position| position >= end));
        positions
            .wait_for(reached)
            .await
            .map_err(|_| Error::fatal("the reader of compacted topics has ended"))?;
        Ok(())
    }

    /// Ends the follower.
    pub async fn close(mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

impl Drop for TopicTail {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake();
    }
}

/// A queue per partition, so that the end of each is known.
struct Queue {
    tp: TopicPartition,
    native: PartitionQueue<LoggedConsumer>,
}

fn partitions(native: &Native, names: &[Topic]) -> Result<Vec<TopicPartition>> {
    let metadata =
        native.fetch_metadata(None, METADATA_TIMEOUT).map_err(|e| error("listing the topics", &e))?;
    let mut partitions = Vec::new();
    for name in names {
        let topic = metadata.topics().iter().find(|topic| topic.name() == &**name);
        let count = topic.map_or(0, |topic| topic.partitions().len());
        if count == 0 {
            return Err(Error::retriable(format!("topic `{name}` does not exist")));
        }
        let each = (0..count).filter_map(|p| i32::try_from(p).ok());
        partitions.extend(each.map(|partition| TopicPartition { topic: Arc::clone(name), partition }));
    }
    Ok(partitions)
}

fn assign(native: &Arc<Native>, partitions: Vec<TopicPartition>, shared: &Arc<Shared>) -> Result<Vec<Queue>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for tp in &partitions {
        list.add_partition_offset(&tp.topic, tp.partition, Offset::Beginning)
            .map_err(|e| error("assigning", &e))?;
    }
    native.assign(&list).map_err(|e| error("reading compacted topics", &e))?;
    let mut queues = Vec::new();
    for tp in partitions {
        let queue = native.split_partition_queue(&tp.topic, tp.partition);
        let mut queue = queue.ok_or_else(|| Error::fatal(format!("`{tp}` cannot be read on its own")))?;
        let waker = Arc::clone(shared);
        queue.set_nonempty_callback(move || waker.wake());
        queues.push(Queue { tp, native: queue });
    }
    Ok(queues)
}

struct Follower {
    native: Arc<Native>,
    queues: Vec<Queue>,
    positions: watch::Sender<Positions>,
    shared: Arc<Shared>,
    apply: Apply,
}

impl Follower {
    fn run(self) {
        while !self.shared.closing.load(Ordering::Acquire) {
            // Serves the library's other events; records come through the queues.
            if let Some(Err(cause)) = self.native.poll(Duration::ZERO) {
                tracing::debug!(%cause, "reading compacted topics");
            }
            for queue in &self.queues {
                self.drain(queue);
            }
            self.shared.wait(Duration::from_millis(100));
        }
    }

    fn drain(&self, queue: &Queue) {
        let mut next = None;
        let mut at_end = false;
        while let Some(polled) = queue.native.poll(Duration::ZERO) {
            match polled {
                Ok(message) => {
                    (self.apply)(TailRecord {
                        topic: Arc::clone(&queue.tp.topic),
                        key: message.key().map(Bytes::copy_from_slice),
                        value: message.payload().map(Bytes::copy_from_slice),
                    });
                    next = Some(message.offset() + 1);
                }
                Err(KafkaError::PartitionEOF(_)) => at_end = true,
                Err(cause) => tracing::debug!(%cause, partition = %queue.tp, "reading compacted topics"),
            }
        }
        if at_end && !self.shared.started.load(Ordering::Acquire) {
            // The last offsets of what is there at the start may hold no records, or there are none at all.
            next = next.max(self.end(&queue.tp));
        }
        if let Some(next) = next {
            self.positions.send_modify(|positions| {
                positions.insert(queue.tp.clone(), next);
            });
        }
    }

    fn end(&self, tp: &TopicPartition) -> Option<i64> {
        watermarks(&*self.native, tp).ok().map(|(_, high)| high)
    }
}

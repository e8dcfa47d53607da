//! What a power loss leaves.
//!
//! A directory keeps its synced entries and either a prefix or any selection of the later changes. A file keeps its synced bytes
//! and either a prefix of the later writes, the last of them torn and perhaps with a hole of zeros, or any selection of the
//! later pages. [`PAGE`] is much smaller than a real one, because the files of the tests are.

use super::{FileChange, FileNode, Node, apply_dir, apply_file};

const PAGE: usize = 64;

pub(super) fn survivors(nodes: &[Node], seed: u64) -> Vec<Node> {
    let mut dice = Dice(seed);
    nodes.iter().map(|node| survive(node, &mut dice)).collect()
}

fn survive(node: &Node, dice: &mut Dice) -> Node {
    match node {
        Node::Dir { durable, pending, .. } => {
            let mut now = durable.clone();
            let prefix = dice.coin().then(|| dice.below(pending.len() + 1));
            for (at, change) in pending.iter().enumerate() {
                if prefix.map_or_else(|| dice.coin(), |keep| at < keep) {
                    apply_dir(&mut now, change);
                }
            }
            Node::Dir { durable: now.clone(), now, pending: Vec::new() }
        }
        Node::File(file) => {
            let mut now = if dice.coin() { prefix_of(file, dice) } else { pages_of(file, dice) };
            for range in &file.stale {
                for page in range.clone().step_by(PAGE) {
                    let end = (page + PAGE).min(range.end).min(now.len()).min(file.now.len());
                    if page < end && dice.coin() {
                        now[page..end].copy_from_slice(&file.now[page..end]);
                    }
                }
            }
            Node::File(FileNode { durable: now.clone(), now, ..FileNode::default() })
        }
    }
}

/// The first writes, in their order.
fn prefix_of(file: &FileNode, dice: &mut Dice) -> Vec<u8> {
    let (durable, pending) = (&file.durable, &file.pending);
    let mut now = durable.clone();
    let keep = dice.below(pending.len() + 1);
    pending[..keep].iter().for_each(|change| apply_file(&mut now, change));
    if let Some(FileChange::Write(at, bytes)) = pending.get(keep) {
        let torn = dice.below(bytes.len() + 1);
        apply_file(&mut now, &FileChange::Write(*at, bytes[..torn].to_vec()));
    }
    // Length on disk, data not: a hole of zeros somewhere in what was never synced.
    if now.len() > durable.len() && dice.below(4) == 0 {
        let from = durable.len() + dice.below(now.len() - durable.len());
        let to = (from + 512).min(now.len());
        now[from..to].fill(0);
    }
    now
}

/// Some length that the file had, and any of the pages that were written since.
fn pages_of(file: &FileNode, dice: &mut Dice) -> Vec<u8> {
    let mut content = file.durable.clone();
    let mut lengths = vec![content.len()];
    for change in &file.pending {
        apply_file(&mut content, change);
        lengths.push(content.len());
    }
    let mut now = file.durable.clone();
    now.resize(lengths[dice.below(lengths.len())], 0);
    for page in (0..now.len().min(content.len())).step_by(PAGE) {
        let end = (page + PAGE).min(now.len()).min(content.len());
        if dice.coin() {
            now[page..end].copy_from_slice(&content[page..end]);
        }
    }
    now
}

/// SplitMix64: a seed gives the same run again.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

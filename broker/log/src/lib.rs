//! Segments, indexes, recovery, retention and compaction

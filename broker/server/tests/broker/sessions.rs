//! Fetch sessions over the wire (KIP-227), by name and by id.

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::*;

use crate::client::Client;
use crate::support::*;

/// Goes on with a session, without naming a partition anew.
async fn go_on(client: &mut Client, version: i16, session: i32, epoch: i32) -> FetchResponse {
    let request = FetchRequest {
        session_id: session,
        session_epoch: epoch,
        max_wait_ms: 0,
        ..fetch_request("ignored", 0, 0)
    };
    client.ask(version, &FetchRequest { topics: Vec::new(), ..request }).await
}

#[tokio::test]
async fn a_session_tells_only_what_is_new() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let ids =
        [create(&mut client, "orders", &[]).await.topic_id, create(&mut client, "other", &[]).await.topic_id];
    for (round, version) in [(0, 12), (1, 13)] {
        let mut first = fetch_request("orders", 0, 0);
        first.session_epoch = 0;
        first.topics.extend(fetch_request("other", round, 0).topics);
        for (topic, id) in first.topics.iter_mut().zip(ids) {
            topic.topic_id = id;
        }
        let opened = client.ask(version, &first).await;
        assert_eq!((code(opened.error_code), opened.responses.len()), (ErrorCode::None, 2));
        let session = opened.session_id;
        assert_ne!(session, 0);
        assert!(go_on(&mut client, version, session, 1).await.responses.is_empty(), "nothing is new");

        produce(&mut client, "other", batch(&["a"], None), -1).await;
        let told = go_on(&mut client, version, session, 2).await;
        assert_eq!((told.session_id, told.responses.len()), (session, 1));
        assert_eq!(told.responses[0].topic_id, if version >= 13 { ids[1] } else { uuid::Uuid::nil() });
        assert!(!values(&told.responses[0].partitions[0]).is_empty());

        for (asked, expected) in [
            ((session, 7), ErrorCode::InvalidFetchSessionEpoch),
            ((session + 1, 3), ErrorCode::FetchSessionIdNotFound),
        ] {
            let refused = go_on(&mut client, version, asked.0, asked.1).await;
            assert_eq!((code(refused.error_code), refused.session_id), (expected, 0));
        }
        let other = if version == 12 { 13 } else { 12 };
        let refused = go_on(&mut client, other, session, 3).await;
        assert_eq!(code(refused.error_code), ErrorCode::FetchSessionTopicIdError);
        let ended = go_on(&mut client, version, session, -1).await;
        assert_eq!((code(ended.error_code), ended.session_id), (ErrorCode::None, 0));
        let gone = go_on(&mut client, version, session, 3).await;
        assert_eq!(code(gone.error_code), ErrorCode::FetchSessionIdNotFound);
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}

#[tokio::test]
async fn a_topic_that_was_made_again_is_unknown_under_its_old_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path()).await;
    let mut client = Client::connect(&broker).await;
    let old = create(&mut client, "orders", &[]).await.topic_id;
    let mut first = fetch_request("", 0, 0);
    first.session_epoch = 0;
    first.topics[0].topic_id = old;
    let session = client.ask(13, &first).await.session_id;
    delete(&mut client, "orders").await;
    let new = create(&mut client, "orders", &[]).await.topic_id;
    assert_ne!(old, new);
    let told = go_on(&mut client, 13, session, 1).await;
    assert_eq!(code(told.responses[0].partitions[0].error_code), ErrorCode::UnknownTopicId);
    let mut request = produce_request("", batch(&["a"], None), -1);
    for (id, expected) in [(old, ErrorCode::UnknownTopicId), (new, ErrorCode::None)] {
        request.topic_data[0].topic_id = id;
        let produced = client.ask(13, &request).await.responses.remove(0);
        assert_eq!(produced.topic_id, id);
        assert_eq!(code(produced.partition_responses[0].error_code), expected);
    }
    broker.shutdown(DEADLINE).await.expect("stops");
}

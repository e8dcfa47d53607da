//! Errors of the client library as [`aqueduct_core::Error`].

use aqueduct_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// `context: reason`, with the kind that the runtime acts on.
pub(crate) fn error(context: impl std::fmt::Display, cause: &KafkaError) -> Error {
    if let KafkaError::ClientConfig(_, reason, key, value) = cause {
        return Error::bad_config(format!("{context}: client setting `{key}` = `{value}`: {reason}"));
    }
    let Some(code) = cause.rdkafka_error_code() else {
        return Error::fatal(format!("{context}: {cause}"));
    };
    Error::new(kind(code), format!("{context}: {}", reason(code)))
}

/// What a code means in words.
pub(crate) fn reason(code: Code) -> String {
    match code {
        Code::AllBrokersDown | Code::BrokerTransportFailure => "the Kafka cluster cannot be reached".into(),
        Code::OperationTimedOut => "the Kafka cluster did not answer in time".into(),
        Code::MessageSizeTooLarge => "the record is larger than the topic's `max.message.bytes`".into(),
        Code::KafkaStorageError => {
            "the partition is offline or its disk cannot be written; the broker's log says why and what to do"
                .into()
        }
        Code::Fenced | Code::FencedInstanceId => "another instance has taken this place".into(),
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "authentication failed; check the credentials".into()
        }
        other => other.to_string(),
    }
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => ErrorKind::BadRecord,
        Code::InvalidTopic
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions => ErrorKind::BadConfig,
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NetworkException
        | Code::Resolve
        | Code::WaitingForCoordinator
        | Code::RebalanceInProgress => ErrorKind::Retriable { after: None },
        _ => ErrorKind::Fatal,
    }
}

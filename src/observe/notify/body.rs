//! What a message looks like. The same message has the same bytes at each try.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::WebhookKind;
use crate::store::ClaimedNotification;

/// One change, as it is stored and sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Alert {
    pub(super) condition: String,
    pub(super) subject: String,
    /// `firing` or `resolved`.
    pub(super) state: String,
    pub(super) summary: String,
    pub(super) detail: Value,
    /// It was told before and still is so.
    pub(super) reminder: bool,
    /// Since when it fires, or fired.
    pub(super) since: String,
    /// When this change was found.
    pub(super) at: String,
}

/// The body, for a receiver of this kind.
pub(super) fn write(
    kind: WebhookKind,
    service: &str,
    message: &ClaimedNotification,
    alerts: &[Alert],
) -> Bytes {
    let not_shown = usize::try_from(message.alert_count).unwrap_or_default();
    let not_shown = not_shown.saturating_sub(alerts.len());
    let body = match kind {
        WebhookKind::Json => json!({
            "type": "adjutant.conditions",
            "timestamp": alerts.last().map_or("", |alert| alert.at.as_str()),
            "data": {
                "service": service,
                "condition": message.condition,
                "alerts": alerts,
                "alerts_not_shown": not_shown,
            },
        }),
        WebhookKind::Slack => json!({ "text": text(service, alerts, not_shown) }),
    };
    body.to_string().into()
}

/// Slack's own marks: `&`, `<` and `>` are escaped, `*bold*`.
fn text(service: &str, alerts: &[Alert], not_shown: usize) -> String {
    let mut lines: Vec<String> = alerts
        .iter()
        .map(|alert| {
            let state = match (alert.state.as_str(), alert.reminder) {
                ("firing", true) => "STILL FIRING",
                ("firing", false) => "FIRING",
                _ => "resolved",
            };
            let line = format!("[{service}] *{state}* {}: {}", alert.condition, alert.summary);
            line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
        })
        .collect();
    if not_shown > 0 {
        lines.push(format!("… and {not_shown} more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{RawJson, Timestamp};

    fn message(count: i32) -> ClaimedNotification {
        ClaimedNotification {
            id: uuid::Uuid::nil(),
            condition: "group_lag".into(),
            alerts: RawJson::from_trusted("[]".into()),
            alert_count: count,
            attempts: 1,
            first_tried_at: Timestamp::UNIX_EPOCH,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn alert(state: &str) -> Alert {
        Alert {
            condition: "group_lag".into(),
            subject: "projection.x".into(),
            state: state.into(),
            summary: "a < b & c".into(),
            detail: json!({ "entries": 7 }),
            reminder: false,
            since: "2026-01-01T00:00:00.000000Z".into(),
            at: "2026-01-01T00:00:05.000000Z".into(),
        }
    }

    #[test]
    fn a_program_gets_every_field() {
        let alerts = [alert("firing"), alert("resolved")];
        let body = write(WebhookKind::Json, "bank", &message(5), &alerts);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "adjutant.conditions");
        assert_eq!(body["timestamp"], "2026-01-01T00:00:05.000000Z");
        assert_eq!(body["data"]["alerts"][1]["state"], "resolved");
        assert_eq!(body["data"]["alerts"][0]["detail"]["entries"], 7);
        assert_eq!(body["data"]["alerts_not_shown"], 3);
    }

    #[test]
    fn slack_gets_lines() {
        let body = write(WebhookKind::Slack, "bank", &message(2), &[alert("firing")]);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = body["text"].as_str().unwrap();
        assert_eq!(text, "[bank] *FIRING* group_lag: a &lt; b &amp; c\n… and 1 more");
    }
}

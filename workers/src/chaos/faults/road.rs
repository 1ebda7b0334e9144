//! Trouble on the way to a service: for one process, for all of a role, or for everybody.

use adjutant::store::Role;

use crate::chaos::{
    class::Trouble,
    error::ChaosError,
    fleet::{Fleet, Slot},
    proxy::{Mode, Proxy},
    random::Draw,
};

/// Brings trouble onto some roads for a while.
pub(super) async fn trouble(
    fleet: &Fleet,
    trouble: Trouble,
    road: impl Fn(&Slot) -> &Proxy,
    draw: &mut Draw,
) -> Result<String, ChaosError> {
    let (who, slots) = travellers(fleet, draw);
    let mode = match trouble {
        Trouble::Drop => Mode::Drop,
        Trouble::Delay => Mode::Delay(draw.millis(200..800)),
        Trouble::HalfOpen => Mode::HalfOpen,
        Trouble::Reset => Mode::Reset,
    };
    // At times longer than heartbeats, keep-alives and the membership have patience.
    let length =
        if draw.happens(15) { draw.millis(6_000..10_000) } else { draw.millis(800..3_000) };
    for slot in &slots {
        road(slot).set(mode);
    }
    tokio::time::sleep(length).await;
    for slot in &slots {
        road(slot).set(Mode::Open);
    }
    let how = if let Mode::Delay(delay) = mode { format!(" by {delay:?}") } else { String::new() };
    Ok(format!("{who} for {length:?}{how}"))
}

fn travellers<'a>(fleet: &'a Fleet, draw: &mut Draw) -> (String, Vec<&'a Slot>) {
    let all: Vec<&Slot> = fleet.slots().iter().collect();
    match draw.below(3) {
        0 => match draw.one_of(&all) {
            Some(slot) => (slot.name.clone(), vec![*slot]),
            None => ("nobody".into(), Vec::new()),
        },
        1 => match draw.one_of(&Role::ALL) {
            Some(role) => (format!("every {role}"), fleet.of(*role)),
            None => ("nobody".into(), Vec::new()),
        },
        _ => ("everybody".into(), all),
    }
}

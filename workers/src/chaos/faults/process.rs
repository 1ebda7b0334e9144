//! Processes of the service that are killed or stopped.

use adjutant::store::Role;

use crate::chaos::{
    error::ChaosError,
    fleet::{Fleet, Slot},
    random::Draw,
};

/// SIGKILL; after a moment another process takes its place.
pub(super) async fn kill(fleet: &Fleet, role: Role, draw: &mut Draw) -> Result<String, ChaosError> {
    let slot = victim(fleet, role, draw)?;
    let pid = slot.kill();
    let absence = draw.millis(200..1_500);
    tokio::time::sleep(absence).await;
    slot.start()?;
    let pid = pid.map_or_else(|| "already gone".to_owned(), |pid| format!("process {pid}"));
    Ok(format!("{}, {pid}, away for {absence:?}", slot.name))
}

/// SIGSTOP and SIGCONT, a third of the time for longer than its membership lasts (5 s).
pub(super) async fn pause(
    fleet: &Fleet,
    role: Role,
    draw: &mut Draw,
) -> Result<String, ChaosError> {
    let slot = victim(fleet, role, draw)?;
    let pause = if draw.happens(33) { draw.millis(5_300..6_500) } else { draw.millis(300..2_500) };
    slot.pause()?;
    tokio::time::sleep(pause).await;
    slot.resume()?;
    Ok(format!("{} for {pause:?}", slot.name))
}

fn victim<'a>(fleet: &'a Fleet, role: Role, draw: &mut Draw) -> Result<&'a Slot, ChaosError> {
    let all = fleet.of(role);
    let found = draw.one_of(&all).copied();
    found.ok_or_else(|| ChaosError::Missing(format!("there is no process with the role {role}")))
}

/**
 * The cases of the driver contract that the lab runs over LVM. A case takes seconds on an emulated machine, so
 * each kind of provisioning gets those that it can fail; `LIBSTORAGE_LAB_FULL=1` runs all of them, which takes an hour.
 */
const BOTH: readonly string[] = [
  "a new service is empty",
  "sizes, device rules and abilities make sense",
  "create answers what was asked for",
  "a created volume is listed as it was answered",
  'a volume can be named "Grüße, 世界 🌍"',
  "an id that is taken is refused and its volume left alone",
  "volumes are the same after opening again",
  "the instance ID is kept as it was sent",
  "detaching an unknown volume is refused",
  "expand grows a volume",
  "a copy is a volume as it was asked for",
  "a copy outlives its source",
  "a snapshot is listed and inspected as it was answered",
  "a snapshot outlives its volume",
  "a volume is made from the snapshot of a removed volume",
  "a volume outlives the snapshot it was made from",
  "a copy of a snapshot outlives it and can be copied",
];

const THIN: readonly string[] = [
  ...BOTH,
  "free bytes are at most all bytes",
  "fields are kept",
  "creating the same once more is the same volume",
  "a create over a volume in use is refused",
  "sixteen creates at once make sixteen volumes",
  "an unknown id is no volume and no snapshot",
  "removing once more is fine",
  "update writes name, fields, status and the like",
  "update can take fields away",
  "attaching once more changes nothing",
  "a volume can have two holders: the core decides whether it may",
  "the epoch never falls",
  "mount point and fields of an attachment are kept",
  "detach takes out that holder only",
  "eight snapshots of one volume at once are eight",
  "create that fails at any point leaves nothing half done",
  "update whose step succeeds unseen leaves nothing half done",
  "attach killed after any point can be done again",
  "detach that fails at any point leaves nothing half done",
  "expand killed after any point can be done again",
  "remove that hangs anywhere is cancelled and leaves nothing half done",
  "copy whose step succeeds unseen leaves nothing half done",
  "snapshot killed after any point can be removed",
  "snapshot remove killed before any point can be done again",
  "create from snapshot that fails at any point leaves nothing half done",
];

const THICK: readonly string[] = [
  ...BOTH,
  "create whose step succeeds unseen leaves nothing half done",
  "copy that fails at any point leaves nothing half done",
  "copy killed after any point can be done again",
  "snapshot that fails at any point leaves nothing half done",
  "attach that fails at any point leaves nothing half done",
];

const isWhole = process.env["LIBSTORAGE_LAB_FULL"] === "1";

export function isWantedIn(kind: "thin" | "thick"): (title: string) => boolean {
  const titles = new Set(kind === "thin" ? THIN : THICK);
  return (title) => isWhole || titles.has(title);
}

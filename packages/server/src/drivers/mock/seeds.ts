/** What the reference's mock starts with. */
import { bytesOfGiB } from "@libstorage/model";
import type { SnapshotRecord, VolumeRecord } from "../../core/driver.js";

const SIZES_GIB = [10240, 40960, 163840];
const SNAPSHOT_SIZES_GIB = [100, 101, 102];

export const SEED_VOLUMES: readonly VolumeRecord[] = SIZES_GIB.map((size, number) => ({
  id: `vol-00${number}`,
  name: `Volume ${number}`,
  sizeBytes: bytesOfGiB(size),
  type: "gold",
  availabilityZone: `zone-00${number}`,
  iops: 0,
  encrypted: false,
  fields: {},
  attachments: [],
  epoch: 0,
  source: { kind: "none" },
}));

export const SEED_SNAPSHOTS: readonly SnapshotRecord[] = SNAPSHOT_SIZES_GIB.map((size, number) => ({
  id: `snap-00${number}`,
  name: `Snapshot ${number}`,
  volumeID: `vol-00${number}`,
  sizeBytes: bytesOfGiB(size),
  encrypted: false,
  startTime: 0,
  status: "",
  fields: {},
  source: { kind: "none" },
}));

/** Every exporter there is, by the name that a service's configuration uses. */
import type { ExporterModule } from "../core/exporter.js";
import { fuse } from "./fuse/index.js";
import { iscsiLio } from "./iscsi-lio/index.js";
import { iscsiTgt } from "./iscsi-tgt/index.js";
import { nbd } from "./nbd/index.js";
import { nfs } from "./nfs/index.js";
import { vhostUserBlk } from "./vhost-user-blk/index.js";

export const EXPORTERS = {
  "iscsi-lio": iscsiLio,
  "iscsi-tgt": iscsiTgt,
  fuse,
  nbd,
  nfs,
  "vhost-user-blk": vhostUserBlk,
} as const satisfies Record<string, ExporterModule>;

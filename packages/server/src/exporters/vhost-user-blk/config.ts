import * as v from "valibot";
import { DAEMON_KEYS, absolutePath } from "../qemu-storage-daemon/config.js";

/** The keys of the vhost-user-blk exporter. */
export const VhostUserBlkConfig = v.strictObject({
  folder: v.optional(
    v.pipe(
      absolutePath,
      v.description("The folder for the sockets. Its path must be short. Default `<lib>/vhost`."),
    ),
  ),
  ...DAEMON_KEYS,
});
export type VhostUserBlkConfig = v.InferOutput<typeof VhostUserBlkConfig>;

import * as v from "valibot";
import { DAEMON_KEYS, absolutePath } from "../qemu-storage-daemon/config.js";

/** The keys of the fuse exporter. */
export const FuseConfig = v.strictObject({
  folder: v.optional(
    v.pipe(
      absolutePath,
      v.description("The folder in which exported volumes appear as files. Default `<lib>/fuse`."),
    ),
  ),
  reconnectSeconds: v.optional(
    v.pipe(
      v.number(),
      v.integer("must be a whole number"),
      v.minValue(1),
      v.maxValue(86_400),
      v.description(
        "How long requests wait for a volume's daemon that was lost and is being replaced, before they fail.",
      ),
    ),
    60,
  ),
  ...DAEMON_KEYS,
});
export type FuseConfig = v.InferOutput<typeof FuseConfig>;

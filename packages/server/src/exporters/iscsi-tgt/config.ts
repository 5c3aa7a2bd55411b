import * as v from "valibot";
import { absolutePath, sharedKeys } from "../iscsi/config.js";

/** The keys of the iscsi-tgt exporter. */
export const TgtConfig = v.strictObject({
  ...sharedKeys,
  socket: v.optional(
    v.pipe(
      absolutePath,
      v.description(
        "The control socket of a tgtd that runs already, without the `.0` at its end, such as `/var/run/tgtd/socket`; its portals are its own, and `portals` must be among them. Without it the server starts a tgtd of its own.",
      ),
    ),
  ),
});
export type TgtConfig = v.InferOutput<typeof TgtConfig>;

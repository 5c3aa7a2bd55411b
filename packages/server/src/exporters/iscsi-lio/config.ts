import * as v from "valibot";
import { absolutePath, sharedKeys } from "../iscsi/config.js";

/** The keys of the iscsi-lio exporter. */
export const LioConfig = v.strictObject({
  ...sharedKeys,
  target: v.optional(
    v.pipe(
      v.picklist(["volume", "service"]),
      v.description(
        "What has a target of its own: each `volume` that is attached, or the `service`, so that a host has one session for all its volumes.",
      ),
    ),
    "volume",
  ),
  iser: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        "Whether portals speak iSER (iSCSI over RDMA) too, and hosts are told to use that. The kernel goes on listening on TCP.",
      ),
    ),
    false,
  ),
  savedFile: v.optional(
    v.pipe(
      v.union([v.picklist(["auto", "off"]), absolutePath]),
      v.description(
        "The file from which targetcli's boot service makes targets again, in which exports are kept too: a path, `off`, or `auto` for `/etc/rtslib-fb-target/saveconfig.json` or `/etc/target/saveconfig.json`, whichever folder there is.",
      ),
    ),
    "auto",
  ),
});
export type LioConfig = v.InferOutput<typeof LioConfig>;

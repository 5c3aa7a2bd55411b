import { isAbsolute } from "node:path";
import * as v from "valibot";

/** The keys of a btrfs service. */
export const BtrfsConfig = v.strictObject({
  root: v.pipe(
    v.string(),
    v.description(
      "The folder that holds the subvolumes, on a btrfs file system; made when it is missing. Several services may have a folder each on one file system.",
    ),
    v.check((path) => isAbsolute(path), "must be an absolute path"),
    v.check((path) => !path.includes("\0"), "must not have a NUL"),
  ),
  quota: v.optional(
    v.pipe(
      v.picklist(["auto", "simple", "qgroup", "require", "off"]),
      v.description(
        "What enforces sizes: `auto` uses the quota that is on and switches none on; `simple` and `qgroup` switch that kind on where none is, and do not start with the other; `require` takes whichever there is or can be; `off`.",
      ),
    ),
    "auto",
  ),
});
export type BtrfsConfig = v.InferOutput<typeof BtrfsConfig>;

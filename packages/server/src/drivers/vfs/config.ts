import { isAbsolute } from "node:path";
import * as v from "valibot";

/** The keys of a vfs service. */
export const VfsConfig = v.strictObject({
  root: v.optional(
    v.pipe(
      v.string(),
      v.description(
        "The folder that holds the volumes; made when it is missing. Default `<lib>/vfs`.",
      ),
      v.check((path) => isAbsolute(path), "must be an absolute path"),
      v.check((path) => !path.includes("\0"), "must not have a NUL"),
    ),
  ),
  quota: v.optional(
    v.pipe(
      v.picklist(["auto", "require", "off"]),
      v.description(
        "Whether sizes are enforced by the file system's project quota: `auto` where it can, `require` or do not start, `off`.",
      ),
    ),
    "auto",
  ),
});
export type VfsConfig = v.InferOutput<typeof VfsConfig>;

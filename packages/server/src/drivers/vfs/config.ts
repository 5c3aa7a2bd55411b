import { isAbsolute } from "node:path";
import * as v from "valibot";

/** The keys of a vfs service. */
export const VfsConfig = v.strictObject({
  /** The folder that holds the volumes; made when it is missing. Default: `vfs` in the server's lib folder. */
  root: v.optional(
    v.pipe(
      v.string(),
      v.check((path) => isAbsolute(path), "must be an absolute path"),
      v.check((path) => !path.includes("\0"), "must not have a NUL"),
    ),
  ),
  /**
   * Whether sizes are enforced by the file system's project quota: `auto` where it can, `require` or do
   * not start, `off`.
   */
  quota: v.optional(v.picklist(["auto", "require", "off"]), "auto"),
});
export type VfsConfig = v.InferOutput<typeof VfsConfig>;

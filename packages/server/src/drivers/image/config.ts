import { isAbsolute } from "node:path";
import * as v from "valibot";

const AbsolutePath = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path), "must be an absolute path"),
  v.check((path) => !path.includes("\0"), "must not have a NUL"),
);

/** The keys of an image service. */
export const ImageConfig = v.strictObject({
  root: v.optional(
    v.pipe(
      AbsolutePath,
      v.description(
        "The folder that holds the images; made when it is missing. Default `<lib>/image`.",
      ),
    ),
  ),
  format: v.optional(
    v.pipe(
      v.picklist(["raw", "qcow2"]),
      v.description(
        "The format of a new volume that names none in its option `format`. It is stated in the volume's record and never found out from its bytes.",
      ),
    ),
    "raw",
  ),
  preallocation: v.optional(
    v.pipe(
      v.picklist(["off", "metadata", "falloc", "full"]),
      v.description(
        "What a new volume that says nothing in its option `preallocation` takes at once: `off` is nothing, `metadata` the tables of a qcow2, `falloc` its whole size, `full` its whole size written with zeros.",
      ),
    ),
    "off",
  ),
  copies: v.optional(
    v.pipe(
      v.picklist(["files", "overlays"]),
      v.description(
        "How a volume is copied: `files` copies it (sharing blocks where the file system can); `overlays` freezes the source's present content and lays a new qcow2 over it on both sides. Raw volumes are always copied as files.",
      ),
    ),
    "files",
  ),
  snapshots: v.optional(
    v.pipe(
      v.picklist(["files", "overlays", "inner"]),
      v.description(
        "How snapshots are made: `files` and `overlays` as for copies; `inner` are the qcow2 format's own, inside the volume's file. Raw volumes are always copied as files.",
      ),
    ),
    "files",
  ),
  encryptionKeyFile: v.optional(
    v.pipe(
      AbsolutePath,
      v.description(
        "The file that holds the passphrase of encrypted volumes (LUKS). Without it none can be made.",
      ),
    ),
  ),
  maxImportSize: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d+(?:\.\d+)?\s*[kmgt]i?b?$/i, "must be a size such as 100GiB"),
      v.description("The largest disk that an imported image may hold, such as `2TiB`."),
    ),
    "16TiB",
  ),
});
export type ImageConfig = v.InferOutput<typeof ImageConfig>;

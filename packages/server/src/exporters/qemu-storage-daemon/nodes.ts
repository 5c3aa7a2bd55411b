/** The block nodes of a source, as QEMU's daemon is told of them: every format and every file is stated. */
import { StorageError } from "@libstorage/model";
import type { Source } from "../../core/driver.js";
import { layersBelow } from "../../images/layers.js";

type Options = Readonly<Record<string, unknown>>;

function fileNode(filename: string): Options {
  return { driver: "file", filename, discard: "unmap" };
}

/**
 * Locks of what is exported as raw, files and devices alike, keep nobody else out, unless something in between does
 * not share.
 */
function lockedNode(image: Options): Options {
  return {
    driver: "blkdebug",
    "unshare-child-perms": ["write", "resize"],
    discard: "unmap",
    image,
  };
}

/** Without the member, the header would say which files are opened. */
function backingOf(layers: readonly string[]): Options | null {
  const [layer, ...below] = layers;
  if (layer === undefined) return null;
  const file = { driver: "file", filename: layer };
  if (layer.endsWith(".raw")) return { driver: "raw", "read-only": true, file };
  return { driver: "qcow2", "read-only": true, backing: backingOf(below), file };
}

/** Whether only reading makes sense. */
export function isReadOnly(source: Source): boolean {
  return source.kind === "file" && source.format === "iso";
}

/** The daemon's name for the passphrase of encrypted images. */
export const KEY = "key0";

export function isEncrypted(source: Source): boolean {
  return source.kind === "file" && (source.format === "luks" || source.format === "qcow2+luks");
}

/** The name of the node of a qcow2's file. */
export function fileNodeOf(name: string): string {
  return `${name}-file`;
}

/**
 * Those to be added, in their order. A qcow2's file is a node of its own: one within another is opened anew by its
 * path when the other becomes a layer, and by then another file may have that path.
 * @param name the volume's node
 * @throws {StorageError} `unimplemented` for a source that the daemon cannot open
 */
export function nodesOf(source: Source, name: string, isWritable: boolean): readonly Options[] {
  const node = nodeOf(source, name, isWritable);
  if (node["driver"] !== "qcow2") return [node];
  return [
    { ...(node["file"] as Options), "node-name": fileNodeOf(name) },
    { ...node, file: fileNodeOf(name) },
  ];
}

/** A new layer over a volume that is open: what lies below it is stated when it is laid there. */
export function overlayNodes(path: string, name: string): readonly Options[] {
  const [file, node] = nodesOf({ kind: "file", path, format: "qcow2" }, name, true);
  return [{ ...file }, { ...node, backing: null }];
}

/** @param name the node's */
function nodeOf(source: Source, name: string, isWritable: boolean): Options {
  const common = { "node-name": name, discard: "unmap", "read-only": !isWritable };
  const raw = (bytes: Options): Options => {
    return { ...common, driver: "raw", file: isWritable ? lockedNode(bytes) : bytes };
  };
  if (source.kind === "block") return raw({ ...fileNode(source.path), driver: "host_device" });
  if (source.kind !== "file") throw unable(source.kind);
  const { path, format } = source;
  if (format === "raw" || format === "iso") return raw(fileNode(path));
  if (format === "luks")
    return { ...common, driver: "luks", "key-secret": KEY, file: lockedNode(fileNode(path)) };
  if (format !== "qcow2" && format !== "qcow2+luks") throw unable(format);
  return {
    ...common,
    driver: "qcow2",
    backing: backingOf(layersBelow(path)),
    file: fileNode(path),
    ...(isEncrypted(source) && { encrypt: { format: "luks", "key-secret": KEY } }),
  };
}

function unable(what: string): StorageError {
  return new StorageError(
    "unimplemented",
    `the storage daemon exports raw and qcow2 images and block devices, and the volume is of kind ${what}`,
  );
}

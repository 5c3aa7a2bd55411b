/** The request bodies of the API. Unknown members are refused, as the reference does (section 10). */
import * as v from "valibot";
import { GIB, MAX_SIZE_GIB } from "./size.js";
import { Opts } from "./types.js";

/** Long enough for any real name, short enough for a file name and for LVM's tags. */
export const MAX_NAME_LENGTH = 255;

const CONTROL = /\p{Cc}/u;
const LONE_SURROGATE = /\p{Cs}/u;
const CLIMBS = /(?:^|\/)\.\.(?:\/|$)/;

/**
 * A name a person chose. It is data, never a path: drivers name their objects after ids. But clients
 * mount at a path that ends with the name, the reference's without a look at it. So `/` is let through,
 * which they use, and `..` as a part of it is not; nor are NUL and other control characters.
 */
export const Name = v.pipe(
  v.string(),
  v.maxLength(MAX_NAME_LENGTH, `must have at most ${MAX_NAME_LENGTH} characters`),
  v.check((text) => !CONTROL.test(text), "must have no control characters"),
  v.check((text) => !LONE_SURROGATE.test(text), "must be well-formed Unicode"),
  v.check((text) => !CLIMBS.test(text), 'must not have ".." as a part of it'),
);

const Text = v.pipe(
  v.string(),
  v.maxLength(4096, "must have at most 4096 characters"),
  v.check((text) => !LONE_SURROGATE.test(text), "must be well-formed Unicode"),
);

/** GiB. 0 means the driver's default, which is what the reference's command line sends. */
export const SizeGiB = v.pipe(
  v.number(),
  v.integer("must be a whole number of GiB"),
  v.minValue(0, "must not be negative"),
  v.maxValue(MAX_SIZE_GIB, `must be at most ${MAX_SIZE_GIB} GiB (${MAX_SIZE_GIB * GIB} bytes)`),
);

export const Iops = v.pipe(
  v.number(),
  v.integer("must be a whole number"),
  v.minValue(0, "must not be negative"),
  v.maxValue(Number.MAX_SAFE_INTEGER, "is too large"),
);

export const VolumeCreateRequest = v.strictObject({
  name: Name,
  availabilityZone: v.optional(Text),
  encrypted: v.optional(v.boolean()),
  encryptionKey: v.optional(Text),
  iops: v.optional(Iops),
  size: v.optional(SizeGiB),
  type: v.optional(Text),
  opts: v.optional(Opts),
});
export type VolumeCreateRequest = v.InferOutput<typeof VolumeCreateRequest>;

export const VolumeCopyRequest = v.strictObject({
  volumeName: Name,
  /** Where the copy is made; the source's own service when it is left out. */
  service: v.optional(v.pipe(Text, v.minLength(1, "must not be empty"))),
  opts: v.optional(Opts),
});
export type VolumeCopyRequest = v.InferOutput<typeof VolumeCopyRequest>;

export const VolumeSnapshotRequest = v.strictObject({ snapshotName: Name, opts: v.optional(Opts) });
export type VolumeSnapshotRequest = v.InferOutput<typeof VolumeSnapshotRequest>;

export const VolumeAttachRequest = v.strictObject({
  force: v.optional(v.boolean()),
  nextDeviceName: v.optional(Text),
  opts: v.optional(Opts),
});
export type VolumeAttachRequest = v.InferOutput<typeof VolumeAttachRequest>;

export const VolumeDetachRequest = v.strictObject({
  force: v.optional(v.boolean()),
  opts: v.optional(Opts),
});
export type VolumeDetachRequest = v.InferOutput<typeof VolumeDetachRequest>;

export const VolumeExpandRequest = v.strictObject({
  /** GiB; must not be below the present size. */
  size: v.pipe(SizeGiB, v.minValue(1, "must be at least 1 GiB")),
  opts: v.optional(Opts),
});
export type VolumeExpandRequest = v.InferOutput<typeof VolumeExpandRequest>;

export const VolumeRevertRequest = v.strictObject({
  snapshotID: v.pipe(Text, v.minLength(1, "must not be empty")),
  opts: v.optional(Opts),
});
export type VolumeRevertRequest = v.InferOutput<typeof VolumeRevertRequest>;

export const VolumeUpdateRequest = v.strictObject({
  name: v.optional(Name),
  type: v.optional(Text),
  iops: v.optional(Iops),
  /** Sets these and leaves the others; null takes one away. */
  fields: v.optional(
    v.record(
      v.pipe(
        v.string(),
        v.minLength(1, "must not be empty"),
        v.maxLength(MAX_NAME_LENGTH, `must have at most ${MAX_NAME_LENGTH} characters`),
      ),
      v.nullable(Text),
    ),
  ),
  opts: v.optional(Opts),
});
export type VolumeUpdateRequest = v.InferOutput<typeof VolumeUpdateRequest>;

export const VolumeCheckRequest = v.strictObject({
  /** Mends leaks; what is corrupt is left as it is. */
  repair: v.optional(v.boolean()),
  opts: v.optional(Opts),
});
export type VolumeCheckRequest = v.InferOutput<typeof VolumeCheckRequest>;

/** `raw` or `qcow2`: the driver knows which. */
const Format = v.pipe(v.string(), v.minLength(1), v.maxLength(32));

export const VolumeFormatRequest = v.strictObject({ format: Format, opts: v.optional(Opts) });
export type VolumeFormatRequest = v.InferOutput<typeof VolumeFormatRequest>;

export const VolumeShrinkRequest = v.strictObject({
  /** GiB; must not be above the present size. */
  size: v.pipe(SizeGiB, v.minValue(1, "must be at least 1 GiB")),
  /** Whether data behind the new end may be lost. */
  discardData: v.optional(v.boolean()),
  opts: v.optional(Opts),
});
export type VolumeShrinkRequest = v.InferOutput<typeof VolumeShrinkRequest>;

export const SnapshotCopyRequest = v.strictObject({
  snapshotName: Name,
  destinationID: Text,
  opts: v.optional(Opts),
});
export type SnapshotCopyRequest = v.InferOutput<typeof SnapshotCopyRequest>;

/** Capacity ranges in bytes, and the whole GiB in which volumes are made. */
import { GIB, MAX_SIZE_GIB } from "@libstorage/model";
import type { CapacityRange } from "./messages.js";
import { CsiError, invalid } from "./status.js";

/** @throws {CsiError} INVALID_ARGUMENT for a range that is none */
export function checkRange({ requiredBytes, limitBytes }: CapacityRange): void {
  if (requiredBytes < 0 || limitBytes < 0) throw invalid("capacity_range must not be negative");
  if (limitBytes > 0 && requiredBytes > limitBytes)
    throw invalid("capacity_range: required_bytes is more than limit_bytes");
}

/**
 * The size of a new volume, or of one that grows: the least whole GiB in the range.
 * @param atLeastGiB what its data need
 * @returns GiB, or undefined when nothing is asked
 * @throws {CsiError} OUT_OF_RANGE, INVALID_ARGUMENT
 */
export function sizeFor(range: CapacityRange | null, atLeastGiB = 0): number | undefined {
  if (range === null) return undefined;
  checkRange(range);
  const { requiredBytes, limitBytes } = range;
  if (requiredBytes === 0 && limitBytes === 0) return undefined;
  // A range without a lower end is met by the smallest volume.
  const size = Math.max(1, Math.ceil(requiredBytes / GIB), atLeastGiB);
  if (size > MAX_SIZE_GIB)
    throw new CsiError(
      "OUT_OF_RANGE",
      `a volume has at most ${MAX_SIZE_GIB} GiB; ${requiredBytes} bytes are asked for`,
    );
  if (limitBytes > 0 && size * GIB > limitBytes)
    throw new CsiError(
      "OUT_OF_RANGE",
      atLeastGiB * GIB > limitBytes
        ? `the source has ${atLeastGiB} GiB, which is more than limit_bytes ${limitBytes}`
        : `volumes are made in whole GiB: the least that holds ${requiredBytes} bytes is ${size} GiB, which is more than limit_bytes ${limitBytes}`,
    );
  return size;
}

/** Whether a volume of so many bytes (0: without limit) is one that was asked for. */
export function isInRange(range: CapacityRange | null, bytes: number): boolean {
  if (range === null || bytes === 0) return true;
  const { requiredBytes, limitBytes } = range;
  return bytes >= requiredBytes && (limitBytes === 0 || bytes <= limitBytes);
}

export function bytesOf(size: number | undefined): number {
  return (size ?? 0) * GIB;
}

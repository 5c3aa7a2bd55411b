/** The wire counts GiB, which it calls GB; inside all is bytes. */
export const GIB = 1024 ** 3;

/** The largest size whose bytes a number still holds exactly: just under 8 PiB. */
export const MAX_SIZE_GIB = Math.floor(Number.MAX_SAFE_INTEGER / GIB);

export function bytesOfGiB(gib: number): number {
  return gib * GIB;
}

/** Whole GiB that hold `bytes`; a part of one counts as one. */
export function gibOfBytes(bytes: number): number {
  return Math.ceil(bytes / GIB);
}

/** `bytes` rounded up to a multiple of `unit`. */
export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  k: 1024,
  kib: 1024,
  kb: 1000,
  m: 1024 ** 2,
  mib: 1024 ** 2,
  mb: 1000 ** 2,
  g: GIB,
  gib: GIB,
  gb: 1000 ** 3,
  t: 1024 ** 4,
  tib: 1024 ** 4,
  tb: 1000 ** 4,
};

/**
 * Reads `16` (GiB, as the reference), `10G`, `512MiB`, `1.5T`.
 * @param plainUnit bytes that a number without a unit counts
 * @returns bytes, or undefined when the text is no size
 */
export function parseSize(text: string, plainUnit = GIB): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const name = match?.[2]?.toLowerCase() ?? "";
  const unit = name === "" ? plainUnit : UNITS[name];
  if (match?.[1] === undefined || unit === undefined) return undefined;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** For people: `512 MiB`, `10 GiB`, `1.5 TiB`. */
export function formatSize(bytes: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let step = 0;
  while (value >= 1024 && step < names.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${names[step]}`;
}

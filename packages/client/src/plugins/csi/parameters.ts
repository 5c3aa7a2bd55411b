/** Parameters of a storage class as what the service asks for when it makes a volume. */
import type { ServiceInfo, VolumeCreateRequest, VolumeUpdateRequest } from "@libstorage/model";
import { mutableIn } from "./capabilities.js";
import type { TextMap } from "./messages.js";
import { invalid } from "./status.js";

/** What orchestrators add of their own, such as the name of the claim. */
const FOREIGN = /^(?:csi\.storage\.k8s\.io|csi\.nomad)\//;
/** `option.KEY` goes to the driver as its option KEY. */
const OPTION = /^option\.([A-Za-z][\w.-]{0,63})$/;

export const PARAMETERS = ["type", "iops", "zone", "encrypted"] as const;

type Wanted = Pick<
  VolumeCreateRequest,
  "type" | "iops" | "availabilityZone" | "encrypted" | "opts"
>;

/** The parameters that say something about the volume, by which two requests are compared. */
export function ownParameters(parameters: TextMap): TextMap {
  return Object.fromEntries(Object.entries(parameters).filter(([key]) => !FOREIGN.test(key)));
}

/** @throws {CsiError} INVALID_ARGUMENT, with the known ones */
export function readParameters(parameters: TextMap): Wanted {
  const wanted: {
    type?: string;
    iops?: number;
    availabilityZone?: string;
    encrypted?: boolean;
  } = {};
  const opts: Record<string, string> = {};
  for (const [key, value] of Object.entries(ownParameters(parameters))) {
    const option = OPTION.exec(key)?.[1];
    if (option !== undefined) {
      if (/^csi\./i.test(option)) throw invalid(`the option ${option} is the plugin's own`);
      opts[option] = value;
    } else if (key === "type") wanted.type = value;
    else if (key === "zone") wanted.availabilityZone = value;
    else if (key === "iops") wanted.iops = wholeNumber(key, value);
    else if (key === "encrypted") wanted.encrypted = truth(key, value);
    else
      throw invalid(
        `parameter ${JSON.stringify(key)} is not known; there are ${PARAMETERS.join(", ")} and option.KEY for options of the driver`,
      );
  }
  return { ...wanted, ...(Object.keys(opts).length > 0 && { opts }) };
}

function wholeNumber(key: string, value: string): number {
  if (/^\d{1,15}$/.test(value)) return Number(value);
  throw invalid(`parameter ${key} must be a whole number`);
}

function truth(key: string, value: string): boolean {
  if (value === "true" || value === "false") return value === "true";
  throw invalid(`parameter ${key} must be true or false`);
}

/** What the plugin itself decides, by the access modes that a volume was made for. */
const OWN_OPTION = /^(?:csi\.|shareable$)/i;

/**
 * Parameters that change a volume that is there: of `type`, `iops` and `option.KEY` those that the service can.
 * @throws {CsiError} INVALID_ARGUMENT, with the known ones
 */
export function readMutable(
  parameters: TextMap,
  info: ServiceInfo,
): Pick<VolumeUpdateRequest, "type" | "iops"> & { fields?: Record<string, string> } {
  const mutable = mutableIn(info);
  const wanted: { type?: string; iops?: number } = {};
  const fields: Record<string, string> = {};
  for (const [key, value] of Object.entries(ownParameters(parameters))) {
    const option = OPTION.exec(key)?.[1];
    if (!mutable.includes(option === undefined ? key : "fields")) throw unknownMutable(key, info);
    if (option !== undefined && OWN_OPTION.test(option))
      throw invalid(`mutable parameter ${key}: the option ${option} is the plugin's own`);
    if (option !== undefined) fields[option.toLowerCase()] = value;
    else if (key === "type") wanted.type = value;
    else if (key === "iops") wanted.iops = wholeNumber(key, value);
    else throw unknownMutable(key, info);
  }
  return { ...wanted, ...(Object.keys(fields).length > 0 && { fields }) };
}

function unknownMutable(key: string, info: ServiceInfo): Error {
  const known = mutableIn(info).map((name) => (name === "fields" ? "option.KEY" : name));
  const words = known.length === 0 ? "it can change none" : `it can change ${known.join(", ")}`;
  return invalid(
    `mutable parameter ${JSON.stringify(key)} cannot be changed by service ${info.name} (driver ${info.driver.name}): ${words}`,
  );
}

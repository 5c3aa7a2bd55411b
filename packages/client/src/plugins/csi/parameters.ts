/** Parameters of a storage class as what the service asks for when it makes a volume. */
import type { VolumeCreateRequest } from "@libstorage/model";
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

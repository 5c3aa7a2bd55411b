/**
 * CreateVolume. The name is what makes it idempotent, and the service decides who gets it: one request makes
 * the volume, and every other one with that name, from this plugin or another, finds it.
 */
import { StorageError } from "@libstorage/model";
import type { ServiceInfo, Volume } from "@libstorage/model";
import type { Service } from "./backend.js";
import { absent, changing, usableVolume } from "./backend.js";
import {
  can,
  checkCapabilities,
  needsManyNodes,
  requireSupport,
  unsupported,
} from "./capabilities.js";
import type { CheckedCapability } from "./capabilities.js";
import { choicesForCopy } from "./copy-choices.js";
import type { ContentSource, CreateVolumeRequest, UnaryHandler } from "./messages.js";
import { checkID, checkName, isPossibleID, objectName } from "./names.js";
import { ownParameters, readMutable, readParameters } from "./parameters.js";
import type { PluginContext } from "./plugin-context.js";
import { bytesOf, isInRange, sizeFor } from "./sizes.js";
import { CsiError, hasCode, invalid } from "./status.js";
import { checkRequirements } from "./topology.js";
import { CHOICES_DONE, digestOf, factsOf, fieldsOf, sourceText } from "./volume-facts.js";
import type { Choices, VolumeFacts } from "./volume-facts.js";
import { SHAREABLE } from "./volume-sharing.js";
import { volumeOf } from "./volume-view.js";

interface Wanted {
  readonly request: CreateVolumeRequest;
  readonly capabilities: readonly CheckedCapability[];
  readonly options: ReturnType<typeof readParameters>;
  readonly info: ServiceInfo;
  readonly service: Service;
  readonly signal: AbortSignal;
}

export function createVolume(context: PluginContext): UnaryHandler<"CreateVolume"> {
  const { backend, pending, settings } = context;
  return async (request, signal) => {
    const { name, volumeContentSource: source } = request;
    checkName(name);
    const capabilities = checkCapabilities(request.volumeCapabilities);
    checkSource(source);
    const asked = readParameters(request.parameters);
    sizeFor(request.capacityRange);
    const info = await backend.info(signal);
    const options = withMutable(asked, readMutable(request.mutableParameters, info));
    requireSupport(info, capabilities, "INVALID_ARGUMENT");
    checkAbility(info, source);
    checkRequirements(settings.topology, request.accessibilityRequirements);
    return pending.alone("CreateVolume", [`volume named ${name}`], async () => {
      const service = await backend.service(signal);
      const wanted = { request, capabilities, options, info, service, signal };
      const volume = await findOrMake(wanted);
      return { volume: volumeOf(volume, settings.topology) };
    });
  };
}

/** What can be changed later counts before what the class of the volume says. */
function withMutable(
  { opts, ...plain }: ReturnType<typeof readParameters>,
  { fields, ...mutable }: ReturnType<typeof readMutable>,
): ReturnType<typeof readParameters> {
  const all = { ...opts, ...fields };
  return { ...plain, ...mutable, ...(Object.keys(all).length > 0 && { opts: all }) };
}

function checkSource(source: ContentSource | null): void {
  if (source === null) return;
  if (source.type === undefined) throw invalid("volume_content_source names no source");
  const id = idIn(source);
  checkID("the id of the volume_content_source", id);
}

function idIn(source: ContentSource): string {
  return source.snapshot?.snapshotId ?? source.volume?.volumeId ?? "";
}

function checkAbility(info: ServiceInfo, source: ContentSource | null): void {
  const ability = source?.type === "snapshot" ? "snapshot" : "copy";
  if (source !== null && !can(info, ability))
    throw invalid(
      `service ${info.name} (driver ${info.driver.name}) cannot make a volume from a ${source.type}`,
    );
}

async function findOrMake(wanted: Wanted): Promise<Volume> {
  try {
    return await finish(await make(wanted), wanted);
  } catch (error) {
    if (!hasCode(error, "already-exists")) throw error;
    const id = error.data["volumeID"];
    if (typeof id !== "string")
      throw new CsiError(
        "ABORTED",
        `a volume named ${wanted.request.name} is being made; try again`,
        {
          cause: error,
        },
      );
    const { service, signal } = wanted;
    const params = { service: service.name, volumeID: id };
    const found = await service.calls.volumeInspect(params, undefined, { signal }).catch(absent);
    if (found === undefined)
      throw new CsiError(
        "ABORTED",
        `the volume named ${wanted.request.name} has just gone; try again`,
        {
          cause: error,
        },
      );
    return finish(sameAs(found, wanted), wanted);
  }
}

async function make(wanted: Wanted): Promise<Volume> {
  const { volumeContentSource: source, capacityRange } = wanted.request;
  if (source === null) return makeEmpty(wanted, sizeFor(capacityRange));
  if (source.type === "snapshot") return makeFromSnapshot(wanted, idIn(source));
  return makeCopy(wanted, idIn(source));
}

function factsFor(
  { request }: Wanted,
  size: number | undefined,
  choices: Choices = {},
): VolumeFacts {
  return {
    name: request.name,
    parameters: digestOf(ownParameters(request.parameters)),
    source: sourceText(request.volumeContentSource),
    size: size ?? 0,
    choices,
  };
}

function optsFor(
  wanted: Wanted,
  size: number | undefined,
  choices?: Choices,
): Record<string, unknown> {
  return {
    ...wanted.options.opts,
    ...fieldsOf(factsFor(wanted, size, choices)),
    // Written either way, so that a copy does not inherit it.
    [SHAREABLE]: String(needsManyNodes(wanted.capabilities)),
  };
}

async function makeEmpty(wanted: Wanted, size: number | undefined): Promise<Volume> {
  const { service, options, request, signal } = wanted;
  const body = {
    ...options,
    name: objectName(request.name),
    ...(size !== undefined && { size }),
    opts: optsFor(wanted, size),
  };
  return service.calls.volumeCreate(
    { service: service.name },
    body,
    changing(signal, { onlyIfNew: true }),
  );
}

async function makeFromSnapshot(wanted: Wanted, snapshotID: string): Promise<Volume> {
  const { service, options, request, signal } = wanted;
  const gone = new CsiError("NOT_FOUND", `there is no snapshot ${snapshotID}`);
  if (!isPossibleID(snapshotID)) throw gone;
  const params = { service: service.name, snapshotID };
  const snapshot = await service.calls.snapshotInspect(params, undefined, { signal }).catch(absent);
  // A volume of that name may be there from before the snapshot went.
  const size = sizeFor(request.capacityRange, snapshot?.volumeSize ?? 0);
  const body = {
    ...options,
    name: objectName(request.name),
    ...(size !== undefined && { size }),
    opts: optsFor(wanted, size),
  };
  try {
    return await service.calls.volumeCreateFromSnapshot(
      params,
      body,
      changing(signal, { onlyIfNew: true }),
    );
  } catch (error) {
    throw hasCode(error, "not-found") ? gone : error;
  }
}

async function makeCopy(wanted: Wanted, volumeID: string): Promise<Volume> {
  const { service, request, signal } = wanted;
  const gone = new CsiError("NOT_FOUND", `there is no volume ${volumeID}`);
  if (!isPossibleID(volumeID)) throw gone;
  const params = { service: service.name, volumeID };
  const source = await service.calls.volumeInspect(params, undefined, { signal }).catch(absent);
  if (source !== undefined) usableVolume(source);
  const size = sizeFor(request.capacityRange, source?.size ?? 0);
  if (source !== undefined && size !== undefined && size > (source.size ?? 0)) {
    if (source.size === undefined)
      throw new CsiError(
        "OUT_OF_RANGE",
        `volume ${volumeID} has no size limit, so its copy cannot be given one`,
      );
    if (!can(wanted.info, "expand"))
      throw new CsiError(
        "OUT_OF_RANGE",
        `a copy of volume ${volumeID} has its ${source.size} GiB: the driver cannot make volumes larger`,
      );
  }
  const choices = source === undefined ? {} : await choicesFor(wanted, source);
  try {
    return await service.calls.volumeCopy(
      params,
      { volumeName: objectName(request.name), opts: optsFor(wanted, size, choices) },
      changing(signal, { onlyIfNew: true }),
    );
  } catch (error) {
    throw hasCode(error, "not-found") ? gone : error;
  }
}

/** One of that name may be there from before its source was changed. */
async function choicesFor(
  { options, info, request, service, signal }: Wanted,
  source: Volume,
): Promise<Choices> {
  try {
    return choicesForCopy(source, options, info);
  } catch (error) {
    const name = objectName(request.name).toLowerCase();
    const params = { service: service.name };
    const all = await service.calls.volumesByService(params, undefined, { signal });
    const there = Object.values(all).find((one) => one.name.toLowerCase() === name);
    if (there === undefined) throw error;
    const data = { volumeID: there.id };
    throw new StorageError("already-exists", `there is a volume ${name}`, data, { cause: error });
  }
}

/** A copy is as its source until it is grown and changed, which an earlier call may not have come to. */
async function finish(volume: Volume, { service, signal }: Wanted): Promise<Volume> {
  const { size = 0, choices = {} } = factsOf(volume) ?? {};
  const params = { service: service.name, volumeID: volume.id };
  let now = volume;
  if (size !== 0 && volume.size !== undefined && volume.size < size)
    now = await service.calls.volumeExpand(params, { size }, changing(signal));
  // Once: what is changed after that stays so.
  if (Object.keys(choices).length > 0)
    now = await service.calls.volumeUpdate(
      params,
      { ...choices, fields: CHOICES_DONE },
      changing(signal),
    );
  return now;
}

/** @throws {CsiError} ALREADY_EXISTS, saying what differs */
function sameAs(volume: Volume, wanted: Wanted): Volume {
  const { request, capabilities, info } = wanted;
  const differs = (what: string): CsiError =>
    new CsiError(
      "ALREADY_EXISTS",
      `volume ${volume.id} has the name ${request.name} already, ${what}`,
    );
  const facts = factsOf(volume);
  if (facts === undefined) throw differs("and was not made by this plugin");
  if (facts.name !== request.name) throw differs(`as that of the volume ${facts.name}`);
  const asked = factsFor(wanted, undefined);
  if (facts.source !== asked.source)
    throw differs(`and was made ${facts.source === "" ? "empty" : `from ${facts.source}`}`);
  if (facts.parameters !== asked.parameters) throw differs("with other parameters");
  const bytes = bytesOf(Math.max(volume.size ?? 0, facts.size));
  if (!isInRange(request.capacityRange, bytes)) throw differs(`with ${bytes} bytes`);
  const isShareable = volume.fields?.[SHAREABLE] === "true";
  if (needsManyNodes(capabilities) && !isShareable) throw differs("for one node at a time");
  const [lacking] = capabilities
    .map((one) => unsupported(info, one))
    .filter((one) => one !== undefined);
  if (lacking !== undefined) throw differs(`and ${lacking}`);
  return volume;
}

/**
 * The Container Storage Interface 1.12 as the specification's text has it: names and numbers, written down a second
 * time, from the text and not from this project's file. `name=number:type`; `[]` is repeated, `map` is of strings.
 * Source: container-storage-interface/spec, spec.md (Apache 2.0).
 */

export const RPCS = {
  Identity: "GetPluginInfo GetPluginCapabilities Probe",
  Controller:
    "CreateVolume DeleteVolume ControllerPublishVolume ControllerUnpublishVolume ValidateVolumeCapabilities " +
    "ListVolumes GetCapacity ControllerGetCapabilities CreateSnapshot DeleteSnapshot ListSnapshots GetSnapshot " +
    "ControllerExpandVolume ControllerGetVolume ControllerModifyVolume",
  GroupController:
    "GroupControllerGetCapabilities CreateVolumeGroupSnapshot DeleteVolumeGroupSnapshot GetVolumeGroupSnapshot",
  SnapshotMetadata: "GetMetadataAllocated GetMetadataDelta",
  Node:
    "NodeStageVolume NodeUnstageVolume NodePublishVolume NodeUnpublishVolume NodeGetVolumeStats NodeExpandVolume " +
    "NodeGetCapabilities NodeGetInfo",
};

/** Those that answer a stream. */
export const STREAMS = ["GetMetadataAllocated", "GetMetadataDelta"];

const STATUS = "published_node_ids=1:string[] volume_condition=2:VolumeCondition";
const BLOCKS =
  "block_metadata_type=1:BlockMetadataType volume_capacity_bytes=2:int64 block_metadata=3:BlockMetadata[]";
const GROUP = "group_snapshot_id=1:string snapshot_ids=2:string[] secrets=3:map";

export const MESSAGES: Readonly<Record<string, string>> = {
  GetPluginInfoRequest: "",
  GetPluginInfoResponse: "name=1:string vendor_version=2:string manifest=3:map",
  GetPluginCapabilitiesRequest: "",
  GetPluginCapabilitiesResponse: "capabilities=1:PluginCapability[]",
  PluginCapability: "service=1:Service volume_expansion=2:VolumeExpansion",
  "PluginCapability.Service": "type=1:Type",
  "PluginCapability.VolumeExpansion": "type=1:Type",
  ProbeRequest: "",
  ProbeResponse: "ready=1:google.protobuf.BoolValue",

  CreateVolumeRequest:
    "name=1:string capacity_range=2:CapacityRange volume_capabilities=3:VolumeCapability[] parameters=4:map " +
    "secrets=5:map volume_content_source=6:VolumeContentSource " +
    "accessibility_requirements=7:TopologyRequirement mutable_parameters=8:map",
  CreateVolumeResponse: "volume=1:Volume",
  VolumeContentSource: "snapshot=1:SnapshotSource volume=2:VolumeSource",
  "VolumeContentSource.SnapshotSource": "snapshot_id=1:string",
  "VolumeContentSource.VolumeSource": "volume_id=1:string",
  VolumeCapability: "block=1:BlockVolume mount=2:MountVolume access_mode=3:AccessMode",
  "VolumeCapability.BlockVolume": "",
  "VolumeCapability.MountVolume":
    "fs_type=1:string mount_flags=2:string[] volume_mount_group=3:string",
  "VolumeCapability.AccessMode": "mode=1:Mode",
  CapacityRange: "required_bytes=1:int64 limit_bytes=2:int64",
  Volume:
    "capacity_bytes=1:int64 volume_id=2:string volume_context=3:map content_source=4:VolumeContentSource " +
    "accessible_topology=5:Topology[]",
  TopologyRequirement: "requisite=1:Topology[] preferred=2:Topology[]",
  Topology: "segments=1:map",
  DeleteVolumeRequest: "volume_id=1:string secrets=2:map",
  DeleteVolumeResponse: "",
  ControllerPublishVolumeRequest:
    "volume_id=1:string node_id=2:string volume_capability=3:VolumeCapability readonly=4:bool secrets=5:map " +
    "volume_context=6:map",
  ControllerPublishVolumeResponse: "publish_context=1:map",
  ControllerUnpublishVolumeRequest: "volume_id=1:string node_id=2:string secrets=3:map",
  ControllerUnpublishVolumeResponse: "",
  ValidateVolumeCapabilitiesRequest:
    "volume_id=1:string volume_context=2:map volume_capabilities=3:VolumeCapability[] parameters=4:map " +
    "secrets=5:map mutable_parameters=6:map",
  ValidateVolumeCapabilitiesResponse: "confirmed=1:Confirmed message=2:string",
  "ValidateVolumeCapabilitiesResponse.Confirmed":
    "volume_context=1:map volume_capabilities=2:VolumeCapability[] parameters=3:map mutable_parameters=4:map",
  ListVolumesRequest: "max_entries=1:int32 starting_token=2:string",
  ListVolumesResponse: "entries=1:Entry[] next_token=2:string",
  "ListVolumesResponse.VolumeStatus": STATUS,
  "ListVolumesResponse.Entry": "volume=1:Volume status=2:VolumeStatus",
  ControllerGetVolumeRequest: "volume_id=1:string",
  ControllerGetVolumeResponse: "volume=1:Volume status=2:VolumeStatus",
  "ControllerGetVolumeResponse.VolumeStatus": STATUS,
  ControllerModifyVolumeRequest: "volume_id=1:string secrets=2:map mutable_parameters=3:map",
  ControllerModifyVolumeResponse: "",
  GetCapacityRequest:
    "volume_capabilities=1:VolumeCapability[] parameters=2:map accessible_topology=3:Topology",
  GetCapacityResponse:
    "available_capacity=1:int64 maximum_volume_size=2:google.protobuf.Int64Value " +
    "minimum_volume_size=3:google.protobuf.Int64Value",
  ControllerGetCapabilitiesRequest: "",
  ControllerGetCapabilitiesResponse: "capabilities=1:ControllerServiceCapability[]",
  ControllerServiceCapability: "rpc=1:RPC",
  "ControllerServiceCapability.RPC": "type=1:Type",
  CreateSnapshotRequest: "source_volume_id=1:string name=2:string secrets=3:map parameters=4:map",
  CreateSnapshotResponse: "snapshot=1:Snapshot",
  Snapshot:
    "size_bytes=1:int64 snapshot_id=2:string source_volume_id=3:string " +
    "creation_time=4:google.protobuf.Timestamp ready_to_use=5:bool group_snapshot_id=6:string",
  DeleteSnapshotRequest: "snapshot_id=1:string secrets=2:map",
  DeleteSnapshotResponse: "",
  ListSnapshotsRequest:
    "max_entries=1:int32 starting_token=2:string source_volume_id=3:string snapshot_id=4:string secrets=5:map",
  ListSnapshotsResponse: "entries=1:Entry[] next_token=2:string",
  "ListSnapshotsResponse.Entry": "snapshot=1:Snapshot",
  GetSnapshotRequest: "snapshot_id=1:string secrets=2:map",
  GetSnapshotResponse: "snapshot=1:Snapshot",
  ControllerExpandVolumeRequest:
    "volume_id=1:string capacity_range=2:CapacityRange secrets=3:map volume_capability=4:VolumeCapability",
  ControllerExpandVolumeResponse: "capacity_bytes=1:int64 node_expansion_required=2:bool",

  GroupControllerGetCapabilitiesRequest: "",
  GroupControllerGetCapabilitiesResponse: "capabilities=1:GroupControllerServiceCapability[]",
  GroupControllerServiceCapability: "rpc=1:RPC",
  "GroupControllerServiceCapability.RPC": "type=1:Type",
  CreateVolumeGroupSnapshotRequest:
    "name=1:string source_volume_ids=2:string[] secrets=3:map parameters=4:map",
  CreateVolumeGroupSnapshotResponse: "group_snapshot=1:VolumeGroupSnapshot",
  VolumeGroupSnapshot:
    "group_snapshot_id=1:string snapshots=2:Snapshot[] creation_time=3:google.protobuf.Timestamp " +
    "ready_to_use=4:bool",
  DeleteVolumeGroupSnapshotRequest: GROUP,
  DeleteVolumeGroupSnapshotResponse: "",
  GetVolumeGroupSnapshotRequest: GROUP,
  GetVolumeGroupSnapshotResponse: "group_snapshot=1:VolumeGroupSnapshot",

  BlockMetadata: "byte_offset=1:int64 size_bytes=2:int64",
  GetMetadataAllocatedRequest:
    "snapshot_id=1:string starting_offset=2:int64 max_results=3:int32 secrets=4:map",
  GetMetadataAllocatedResponse: BLOCKS,
  GetMetadataDeltaRequest:
    "base_snapshot_id=1:string target_snapshot_id=2:string starting_offset=3:int64 max_results=4:int32 " +
    "secrets=5:map",
  GetMetadataDeltaResponse: BLOCKS,

  NodeStageVolumeRequest:
    "volume_id=1:string publish_context=2:map staging_target_path=3:string " +
    "volume_capability=4:VolumeCapability secrets=5:map volume_context=6:map",
  NodeStageVolumeResponse: "",
  NodeUnstageVolumeRequest: "volume_id=1:string staging_target_path=2:string",
  NodeUnstageVolumeResponse: "",
  NodePublishVolumeRequest:
    "volume_id=1:string publish_context=2:map staging_target_path=3:string target_path=4:string " +
    "volume_capability=5:VolumeCapability readonly=6:bool secrets=7:map volume_context=8:map",
  NodePublishVolumeResponse: "",
  NodeUnpublishVolumeRequest: "volume_id=1:string target_path=2:string",
  NodeUnpublishVolumeResponse: "",
  NodeGetVolumeStatsRequest: "volume_id=1:string volume_path=2:string staging_target_path=3:string",
  NodeGetVolumeStatsResponse: "usage=1:VolumeUsage[] volume_condition=2:VolumeCondition",
  VolumeUsage: "available=1:int64 total=2:int64 used=3:int64 unit=4:Unit",
  VolumeCondition: "abnormal=1:bool message=2:string",
  NodeGetCapabilitiesRequest: "",
  NodeGetCapabilitiesResponse: "capabilities=1:NodeServiceCapability[]",
  NodeServiceCapability: "rpc=1:RPC",
  "NodeServiceCapability.RPC": "type=1:Type",
  NodeGetInfoRequest: "",
  NodeGetInfoResponse:
    "node_id=1:string max_volumes_per_node=2:int64 accessible_topology=3:Topology",
  NodeExpandVolumeRequest:
    "volume_id=1:string volume_path=2:string capacity_range=3:CapacityRange staging_target_path=4:string " +
    "volume_capability=5:VolumeCapability secrets=6:map",
  NodeExpandVolumeResponse: "capacity_bytes=1:int64",
};

/** In the order of their numbers, from 0. */
export const ENUMS: Readonly<Record<string, string>> = {
  "PluginCapability.Service.Type":
    "UNKNOWN CONTROLLER_SERVICE VOLUME_ACCESSIBILITY_CONSTRAINTS GROUP_CONTROLLER_SERVICE " +
    "SNAPSHOT_METADATA_SERVICE",
  "PluginCapability.VolumeExpansion.Type": "UNKNOWN ONLINE OFFLINE",
  "VolumeCapability.AccessMode.Mode":
    "UNKNOWN SINGLE_NODE_WRITER SINGLE_NODE_READER_ONLY MULTI_NODE_READER_ONLY MULTI_NODE_SINGLE_WRITER " +
    "MULTI_NODE_MULTI_WRITER SINGLE_NODE_SINGLE_WRITER SINGLE_NODE_MULTI_WRITER",
  "ControllerServiceCapability.RPC.Type":
    "UNKNOWN CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME LIST_VOLUMES GET_CAPACITY CREATE_DELETE_SNAPSHOT " +
    "LIST_SNAPSHOTS CLONE_VOLUME PUBLISH_READONLY EXPAND_VOLUME LIST_VOLUMES_PUBLISHED_NODES " +
    "VOLUME_CONDITION GET_VOLUME SINGLE_NODE_MULTI_WRITER MODIFY_VOLUME GET_SNAPSHOT",
  "GroupControllerServiceCapability.RPC.Type": "UNKNOWN CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
  BlockMetadataType: "UNKNOWN FIXED_LENGTH VARIABLE_LENGTH",
  "VolumeUsage.Unit": "UNKNOWN BYTES INODES",
  "NodeServiceCapability.RPC.Type":
    "UNKNOWN STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME VOLUME_CONDITION SINGLE_NODE_MULTI_WRITER " +
    "VOLUME_MOUNT_GROUP",
};

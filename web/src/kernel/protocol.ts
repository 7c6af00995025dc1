// What the page and the kernel's worker say to each other.

import type { RunInfo } from "../types";

/**
 * `kernel`: the address of its file, and of the pack that comes with the page; `train`: a pack, which takes the place
 * of the one before, or null for the one that came with the page.
 */
export type ToKernel = { kernel: string; first: string } | { train: ArrayBuffer | null; id: number } | { stop: true };

export interface Snapshot { step: number; weights: Float32Array<ArrayBuffer> }
/** Of each run, how surprised it is by text that it never trains on; null where that cannot be measured. */
export interface HeldOut { step: number; losses: (number | null)[] }
export interface Written { step: number; texts: string[] }

/** What has come of a run since the last report. */
export interface Report {
  id: number;
  run: RunInfo;
  seeds: number[];
  /** The step before the first of these losses; each step has one for each run. */
  from: number;
  losses: Float64Array<ArrayBuffer>;
  heldOut: HeldOut[];
  samples: Written[];
  snapshots: Snapshot[];
  step: number;
  /** Since the run began, in the kernel and in looking at it. */
  seconds: number;
  done: boolean;
  /** Weights and both moments, each weight with its moments, when it is done. */
  trained: Float32Array<ArrayBuffer> | null;
  /** The loss of the step after these that was no number, and the line that first made one. */
  diverged: { loss: number; line: number | null } | null;
}

export type FromKernel =
  | { event: "ready" }
  | { event: "failed"; message: string }
  | { event: "refused"; id: number; message: string }
  | { event: "missing"; id: number } // the pack that should have come with the page
  | { event: "stopped" }
  | ({ event: "report" } & Report);

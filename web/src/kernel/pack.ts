/** A pack: a training run as Python laid it out for the kernel (microgpt/engines/pack.py says how). */

import type { RunInfo } from "../types";

export type Place = [kind: "Uint8Array" | "Uint16Array" | "Int32Array" | "Float32Array" | "Float64Array", at: number, count: number];
export type Numbers = Uint8Array | Uint16Array | Int32Array | Float32Array | Float64Array;

export interface Program {
  code: Place; fixed: Place; numbers: Place;
  /** Numbers in the memory that only this program uses. */
  own: number;
  /** Numbers in each row of `numbers`. */
  width: number;
  /** How many numbers each step sets anew. */
  scalars: number;
  /** For each step of the program the line of the source that it does; 0 where it does none. */
  lines: number[];
  /** Rows of `numbers` that are set once, and to what. */
  slots?: [row: number, value: number][];
}

export interface Documents { tokens: Place; lengths: Place; order: Place; count: number }

export interface Facts {
  run: RunInfo; seeds: number[];
  lanes: number; runs: number; steps: number; batch: number;
  /** Numbers after the last one of a part of memory, which vectors may touch. */
  slack: number;
  /** How many texts are drawn at a time. */
  texts: number;
  /** A run is measured before its first step, after every so many, and at its end. */
  every: number;
  /** Numbers that the weights take in memory, their padding included. */
  parameters: number;
  /** Of each weight: where, how far apart its rows are, rows, columns. */
  places: [at: number, stride: number, rows: number, columns: number][];
  train: Program; measure?: Program; sample?: Program;
  scalars: Place; weights: Place; chances?: Place;
  documents: Documents; held_out: Documents;
  /** The token that ends a text. */
  mark?: number;
}

export interface Pack { facts: Facts; read(place: Place): Numbers }

const KINDS = { Uint8Array, Uint16Array, Int32Array, Float32Array, Float64Array };

export function unpack(bytes: ArrayBuffer): Pack {
  const head = new DataView(bytes);
  if (head.getUint32(0) !== 0x4d47504b) throw new Error("This is no pack.");
  const length = head.getUint32(4, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length))) as Facts;
  return { facts, read: ([kind, at, count]) => new KINDS[kind](bytes, 8 + length + at, count) };
}

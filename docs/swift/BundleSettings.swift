// How an app reads the bundle.json of a bundle and draws with it by Apple's Swift package, StableDiffusion
// (apple/ml-stable-diffusion at e12202c). Names are the package's own; docs/how-to/draw-in-an-app.md explains.

import CoreML
import Foundation
import StableDiffusion

/// What bundle.json says under `swift_package`, and what an app must do beyond the package under `extensions`.
public struct BundleSettings: Decodable {
    public struct Initializer: Decodable {
        public let computeUnits: String
        public let controlNet: [String]
        public let disableSafety: Bool
        public let reduceMemory: Bool
        public let useMultilingualTextEncoder: Bool
    }

    public struct Configuration: Decodable {
        public let schedulerType: String
        public let schedulerTimestepSpacing: String
        public let schedulerTimestepShift: Float
        public let guidanceScale: Float
        public let rngType: String
        public let encoderScaleFactor: Float
        public let decoderScaleFactor: Float
        public let decoderShiftFactor: Float
        public let originalSize: Float
        public let cropsCoordsTopLeft: Float
        public let targetSize: Float
        public let aestheticScore: Float
        public let negativeAestheticScore: Float
        public let refinerStart: Float
        public let disableSafety: Bool
    }

    public struct Section: Decodable {
        public let pipeline: String
        public let initializer: Initializer
        public let configuration: Configuration
    }

    enum CodingKeys: String, CodingKey {
        case extensions
        case settings = "swift_package"
    }

    public let extensions: [String]
    public let settings: Section

    public enum Failure: Error {
        /// The package alone would draw something else: each name stands in docs/reference/bundle.md.
        case needsAnAppOfItsOwn([String])
        /// This file is older than the bundle.
        case unknown(String)
    }

    /// Reads `bundle.json` in the directory that holds `Resources` too.
    public init(bundleAt url: URL) throws {
        let document = try Data(contentsOf: url.appendingPathComponent("bundle.json"))
        self = try JSONDecoder().decode(BundleSettings.self, from: document)
    }

    /// The pipeline with its resources not loaded yet; ControlNets by their names in `settings.initializer.controlNet`.
    @available(iOS 17.0, macOS 14.0, *)
    public func pipeline(bundleAt url: URL, controlNet: [String] = []) throws -> any StableDiffusionPipelineProtocol {
        guard extensions.isEmpty else { throw Failure.needsAnAppOfItsOwn(extensions) }
        let resources = url.appendingPathComponent("Resources")
        let wanted = settings.initializer
        let model = MLModelConfiguration()
        model.computeUnits = try Self.computeUnits(wanted.computeUnits)
        switch settings.pipeline {
        case "StableDiffusionPipeline":
            return try StableDiffusionPipeline(
                resourcesAt: resources, controlNet: controlNet, configuration: model,
                disableSafety: wanted.disableSafety, reduceMemory: wanted.reduceMemory,
                useMultilingualTextEncoder: wanted.useMultilingualTextEncoder)
        case "StableDiffusionXLPipeline":
            return try StableDiffusionXLPipeline(
                resourcesAt: resources, configuration: model, reduceMemory: wanted.reduceMemory)
        case "StableDiffusion3Pipeline":
            return try StableDiffusion3Pipeline(
                resourcesAt: resources, configuration: model, reduceMemory: wanted.reduceMemory)
        default:
            throw Failure.unknown(settings.pipeline)
        }
    }

    /// A configuration for one prompt, with every setting of the bundle made.
    public func configuration(prompt: String) throws -> PipelineConfiguration {
        let said = settings.configuration
        var made = PipelineConfiguration(prompt: prompt)
        made.schedulerType = try Self.schedulerType(said.schedulerType)
        made.schedulerTimestepSpacing = try Self.spacing(said.schedulerTimestepSpacing)
        made.schedulerTimestepShift = said.schedulerTimestepShift
        made.guidanceScale = said.guidanceScale
        made.rngType = try Self.rngType(said.rngType)
        made.encoderScaleFactor = said.encoderScaleFactor
        made.decoderScaleFactor = said.decoderScaleFactor
        made.decoderShiftFactor = said.decoderShiftFactor
        made.originalSize = said.originalSize
        made.cropsCoordsTopLeft = said.cropsCoordsTopLeft
        made.targetSize = said.targetSize
        made.aestheticScore = said.aestheticScore
        made.negativeAestheticScore = said.negativeAestheticScore
        made.refinerStart = said.refinerStart
        made.disableSafety = said.disableSafety
        return made
    }

    static func computeUnits(_ name: String) throws -> MLComputeUnits {
        switch name {
        case "all": return .all
        case "cpuOnly": return .cpuOnly
        case "cpuAndGPU": return .cpuAndGPU
        case "cpuAndNeuralEngine": return .cpuAndNeuralEngine
        default: throw Failure.unknown(name)
        }
    }

    static func schedulerType(_ name: String) throws -> StableDiffusionScheduler {
        switch name {
        case "pndmScheduler": return .pndmScheduler
        case "dpmSolverMultistepScheduler": return .dpmSolverMultistepScheduler
        case "discreteFlowScheduler": return .discreteFlowScheduler
        default: throw Failure.unknown(name)
        }
    }

    static func spacing(_ name: String) throws -> TimeStepSpacing {
        switch name {
        case "linspace": return .linspace
        case "leading": return .leading
        case "karras": return .karras
        default: throw Failure.unknown(name)
        }
    }

    static func rngType(_ name: String) throws -> StableDiffusionRNG {
        switch name {
        case "numpyRNG": return .numpyRNG
        case "torchRNG": return .torchRNG
        case "nvidiaRNG": return .nvidiaRNG
        default: throw Failure.unknown(name)
        }
    }
}

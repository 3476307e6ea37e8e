define void @k5de33701c12c2764.0(ptr %args, i64 %begin, i64 %end) nounwind {
entry:
  %v9 = alloca [8 x float], align 64
  %v10 = alloca [8 x float], align 64
  %v21 = alloca [8 x float], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr inbounds ptr, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v6 = icmp slt i64 %begin, %end
  br i1 %v6, label %p.4, label %p.end.5
p.4:
  %v7 = phi i64 [ %begin, %entry ], [ %v43, %p.4 ]
  %v8 = getelementptr inbounds float, ptr %v3, i64 %v7
  store float 0xFFF0000000000000, ptr %v8, align 4
  store <8 x float> splat (float 0xFFF0000000000000), ptr %v9, align 64
  store <8 x float> splat (float 0xFFF0000000000000), ptr %v10, align 64
  %v11 = mul nsw i64 %v7, 21
  %v12 = getelementptr inbounds float, ptr %v1, i64 %v11
  %v13 = load <8 x float>, ptr %v12, align 4
  %v14 = load <8 x float>, ptr %v9, align 64
  %v15 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v13, <8 x float> %v14)
  store <8 x float> %v15, ptr %v9, align 64
  %v16 = getelementptr float, ptr %v1, i64 %v11
  %v17 = getelementptr float, ptr %v16, i64 8
  %v18 = load <8 x float>, ptr %v17, align 4
  %v19 = load <8 x float>, ptr %v10, align 64
  %v20 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v18, <8 x float> %v19)
  store <8 x float> %v20, ptr %v10, align 64
  store <5 x float> splat (float 0xFFF0000000000000), ptr %v21, align 64
  %v22 = getelementptr float, ptr %v16, i64 16
  %v23 = load <5 x float>, ptr %v22, align 4
  %v24 = load <5 x float>, ptr %v21, align 64
  %v25 = call nsz <5 x float> @llvm.maximum.v5f32(<5 x float> %v23, <5 x float> %v24)
  store <5 x float> %v25, ptr %v21, align 64
  %v26 = load <8 x float>, ptr %v9, align 64
  %v27 = load <8 x float>, ptr %v10, align 64
  %v28 = load <5 x float>, ptr %v21, align 64
  %v29 = shufflevector <5 x float> %v28, <5 x float> splat (float 0xFFF0000000000000), <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 5, i32 5>
  %v30 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v27, <8 x float> %v26)
  %v31 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v29, <8 x float> %v30)
  %v32 = shufflevector <8 x float> %v31, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v33 = shufflevector <8 x float> %v31, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v34 = call nsz <4 x float> @llvm.maximum.v4f32(<4 x float> %v33, <4 x float> %v32)
  %v35 = shufflevector <4 x float> %v34, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v36 = shufflevector <4 x float> %v34, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v37 = call nsz <2 x float> @llvm.maximum.v2f32(<2 x float> %v36, <2 x float> %v35)
  %v38 = extractelement <2 x float> %v37, i64 0
  %v39 = extractelement <2 x float> %v37, i64 1
  %v40 = call nsz float @llvm.maximum.f32(float %v39, float %v38)
  %v41 = load float, ptr %v8, align 4
  %v42 = call nsz float @llvm.maximum.f32(float %v40, float %v41)
  store float %v42, ptr %v8, align 4
  %v43 = add nsw i64 %v7, 1
  %v44 = icmp slt i64 %v43, %end
  br i1 %v44, label %p.4, label %p.end.5
p.end.5:
  ret void
}

declare <8 x float> @llvm.maximum.v8f32(<8 x float>, <8 x float>)
declare <5 x float> @llvm.maximum.v5f32(<5 x float>, <5 x float>)
declare <4 x float> @llvm.maximum.v4f32(<4 x float>, <4 x float>)
declare <2 x float> @llvm.maximum.v2f32(<2 x float>, <2 x float>)
declare float @llvm.maximum.f32(float, float)

define void @k5de33701c12c2764.0(ptr %args, i64 %begin, i64 %end) nounwind {
entry:
  %v9 = alloca [8 x float], align 64
  %v10 = alloca [8 x float], align 64
  %v22 = alloca [8 x float], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr inbounds ptr, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v6 = icmp slt i64 %begin, %end
  br i1 %v6, label %p.4, label %p.end.5
p.4:
  %v7 = phi i64 [ %begin, %entry ], [ %v48, %p.4 ]
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
  %v16 = mul nsw i64 %v7, 21
  %v17 = getelementptr float, ptr %v1, i64 %v16
  %v18 = getelementptr float, ptr %v17, i64 8
  %v19 = load <8 x float>, ptr %v18, align 4
  %v20 = load <8 x float>, ptr %v10, align 64
  %v21 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v19, <8 x float> %v20)
  store <8 x float> %v21, ptr %v10, align 64
  store <5 x float> splat (float 0xFFF0000000000000), ptr %v22, align 64
  %v23 = mul nsw i64 %v7, 21
  %v24 = getelementptr float, ptr %v1, i64 %v23
  %v25 = getelementptr float, ptr %v24, i64 16
  %v26 = load <5 x float>, ptr %v25, align 4
  %v27 = load <5 x float>, ptr %v22, align 64
  %v28 = call nsz <5 x float> @llvm.maximum.v5f32(<5 x float> %v26, <5 x float> %v27)
  store <5 x float> %v28, ptr %v22, align 64
  %v29 = load <8 x float>, ptr %v9, align 64
  %v30 = load <8 x float>, ptr %v10, align 64
  %v31 = load <5 x float>, ptr %v22, align 64
  %v32 = shufflevector <5 x float> %v31, <5 x float> splat (float 0xFFF0000000000000), <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 5, i32 5>
  %v33 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v30, <8 x float> %v29)
  %v34 = call nsz <8 x float> @llvm.maximum.v8f32(<8 x float> %v32, <8 x float> %v33)
  %v35 = shufflevector <8 x float> %v34, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v36 = shufflevector <8 x float> %v34, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v37 = call nsz <4 x float> @llvm.maximum.v4f32(<4 x float> %v36, <4 x float> %v35)
  %v38 = shufflevector <4 x float> %v37, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v39 = shufflevector <4 x float> %v37, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v40 = call nsz <2 x float> @llvm.maximum.v2f32(<2 x float> %v39, <2 x float> %v38)
  %v41 = extractelement <2 x float> %v40, i64 0
  %v42 = extractelement <2 x float> %v40, i64 1
  %v43 = call nsz float @llvm.maximum.f32(float %v42, float %v41)
  %v44 = getelementptr inbounds float, ptr %v3, i64 %v7
  %v45 = load float, ptr %v44, align 4
  %v46 = call nsz float @llvm.maximum.f32(float %v43, float %v45)
  %v47 = getelementptr inbounds float, ptr %v3, i64 %v7
  store float %v46, ptr %v47, align 4
  %v48 = add nsw i64 %v7, 1
  %v49 = icmp slt i64 %v48, %end
  br i1 %v49, label %p.4, label %p.end.5
p.end.5:
  ret void
}

declare <8 x float> @llvm.maximum.v8f32(<8 x float>, <8 x float>)
declare <5 x float> @llvm.maximum.v5f32(<5 x float>, <5 x float>)
declare <4 x float> @llvm.maximum.v4f32(<4 x float>, <4 x float>)
declare <2 x float> @llvm.maximum.v2f32(<2 x float>, <2 x float>)
declare float @llvm.maximum.f32(float, float)
